"""What is wrong with a kubeconfig: one line with the place and the way out."""

from __future__ import annotations

import pytest

from userspace_proxy.errors import SourceError
from userspace_proxy.sources.kubernetes.kubeconfig import check_kubeconfig

GOOD = """\
apiVersion: v1
kind: Config
current-context: test
contexts:
- name: test
  context: {cluster: home, user: alice}
clusters:
- name: home
  cluster:
    server: https://10.0.0.1:6443
users:
- name: alice
  user: {token: secret}
"""


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "kubeconfig"
    path.write_text(GOOD)
    return path


def problem_of(path) -> str:
    with pytest.raises(SourceError) as caught:
        check_kubeconfig(str(path))
    assert "\n" not in str(caught.value)
    assert caught.value.hint
    return caught.value.message


def test_a_good_one_passes(path):
    check_kubeconfig(str(path))


@pytest.mark.parametrize("namespace", ["", "shop"])
def test_the_context_has_its_cluster_and_perhaps_a_namespace(path, namespace):
    if namespace:
        path.write_text(GOOD.replace("user: alice}", f"user: alice, namespace: {namespace}}}"))
    context = check_kubeconfig(str(path))
    assert context.cluster == {"server": "https://10.0.0.1:6443"}
    assert context.namespace == namespace


def test_a_missing_file(tmp_path):
    path = tmp_path / "nothing"
    assert problem_of(path) == f"cannot read kubeconfig {path}: No such file or directory"


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        pytest.param(
            "kind: Config",
            "kind: [",
            "{}:4: not YAML: while parsing a flow sequence begun in line 2, ",
            id="not-yaml",
        ),
        pytest.param(
            "current-context: test\n", "", "{}:1: current-context: is missing", id="no-context"
        ),
        pytest.param(
            "current-context: test",
            "current-context: prod",
            "{}:3: current-context: 'prod' is not among contexts",
            id="unknown-context",
        ),
        pytest.param(
            "cluster: home, ",
            "",
            "{}:6: contexts[0].context.cluster: is missing",
            id="no-cluster",
        ),
        pytest.param(
            "cluster: home, ",
            "cluster: away, ",
            "{}:6: contexts[0].context.cluster: 'away' is not among clusters",
            id="unknown-cluster",
        ),
        pytest.param(
            "server: https://10.0.0.1:6443",
            "proxy-url: x",
            "{}:9: clusters[0].cluster.server: is missing",
            id="no-server",
        ),
        pytest.param(
            "https://10.0.0.1:6443",
            "10.0.0.1:6443",
            "{}:10: clusters[0].cluster.server: '10.0.0.1:6443' is not an http(s) URL",
            id="no-url",
        ),
        pytest.param(GOOD, "- a\n", "{}:1: it is not a mapping", id="no-mapping"),
        pytest.param(GOOD, "", "{}: it has 0 documents instead of one", id="empty"),
    ],
)
def test_what_does_not_lead_to_a_server_is_named_with_its_line(path, old, new, problem):
    path.write_text(GOOD.replace(old, new))
    assert problem_of(path).startswith("cannot use kubeconfig " + problem.format(path))


def test_what_is_not_text(path):
    path.write_bytes(b"\xff")
    assert problem_of(path) == f"cannot read kubeconfig {path}: not UTF-8"
