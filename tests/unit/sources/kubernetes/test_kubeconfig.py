"""Kubeconfig values equal those of kubectl 1.36, which tests/cluster/test_kubeconfig.py runs."""

from __future__ import annotations

import base64
import json
from pathlib import PurePath
from typing import Any

import pytest

from userspace_proxy.errors import SourceError
from userspace_proxy.model.kubectl_yaml import parse_first
from userspace_proxy.sources.kubernetes.kubeconfig import (
    ClientConfig,
    Content,
    ExecPlugin,
    KubeconfigFile,
    KubeUser,
    read_client_config,
    server_url,
)

SERVER = "https://10.0.0.1:6443"
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
V1 = "client.authentication.k8s.io/v1"
BETA = "client.authentication.k8s.io/v1beta1"


def read(*texts: str, **chosen: str) -> ClientConfig:
    """Read files in the directories /0, /1, … in this order."""
    files = [
        KubeconfigFile(f"file{i}", PurePath(f"/{i}"), parse_first(text, place=f"file{i}"))
        for i, text in enumerate(texts)
    ]
    return read_client_config(files, **chosen)


def problem_of(*texts: str, **chosen: str) -> str:
    with pytest.raises(SourceError) as caught:
        read(*texts, **chosen)
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith("cannot use kubeconfig ")
    return text.removeprefix("cannot use kubeconfig ")


def config(user: Any = None, cluster: dict[str, Any] | None = None, **context: str) -> str:
    return json.dumps(
        {
            "current-context": "a",
            "contexts": [{"name": "a", "context": {"cluster": "a", "user": "a", **context}}],
            "clusters": [{"name": "a", "cluster": {"server": SERVER, **(cluster or {})}}],
            "users": [{"name": "a", "user": user}],
        }
    )


def user_of(user: Any, **cluster: Any) -> KubeUser:
    return read(config(user, cluster)).user


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def test_the_server_user_and_namespace_of_a_kubeconfig_are_read():
    read_config = read(GOOD)
    assert read_config.cluster.server == SERVER
    assert read_config.user == KubeUser(token="secret")
    assert read_config.place == "file0"
    assert read_config.namespace == ""
    assert read(GOOD.replace("alice}", "alice, namespace: shop}")).namespace == "shop"


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        (
            "current-context: test\n",
            "",
            "file0:1: current-context: is missing (give --context=NAME: known: 'test')",
        ),
        (
            "current-context: test",
            "current-context: prod",
            "file0:3: current-context: 'prod' is not among contexts: known: 'test'",
        ),
        (
            "cluster: home, ",
            "",
            "file0:6: contexts[0].context.cluster: is missing (or give --cluster=NAME)",
        ),
        (
            "cluster: home, ",
            "cluster: away, ",
            "file0:6: contexts[0].context.cluster: 'away' is not among clusters: known: 'home'",
        ),
        (
            "server: https://10.0.0.1:6443",
            "proxy-url: x",
            "file0:9: clusters[0].cluster.server: is missing",
        ),
        (
            "https://10.0.0.1",
            "ftp://10.0.0.1",
            "file0:10: clusters[0].cluster.server: 'ftp://10.0.0.1:6443' is not an http(s) URL",
        ),
        (
            "https://10.0.0.1",
            "https://me:secret@10.0.0.1",
            "file0:10: clusters[0].cluster.server: 'https://[removed]@10.0.0.1:6443' must not "
            "contain a user: give username and password to the user",
        ),
        (GOOD, "- a\n", "file0:1: it is not a mapping"),
        ("Config", "Pod", "file0:2: kind: 'Pod' is not Config"),
        (": v1", ": v2", "file0:1: apiVersion: 'v2' is not v1"),
        (
            "- name: test\n  context: {cluster: home, user: alice}",
            "- 5",
            "file0:5: contexts[0]: is not a mapping",
        ),
        ("contexts:\n", "contexts: x\nother:\n", "file0:4: contexts: is not a list"),
        ("users:\n", "users:\n- name: alice\n", "file0:13: users[1].name: 'alice' is given twice"),
        ("{token: secret}", "[]", "file0:13: users[0].user: is not a mapping"),
        ("name: test", "name: 5", "file0:5: contexts[0].name: is not text"),
    ],
)
def test_an_invalid_kubeconfig_is_rejected_with_its_line(old, new, problem):
    assert problem_of(GOOD.replace(old, new)).startswith(problem)


def test_an_empty_kubeconfig_has_no_current_context():
    assert problem_of("") == (
        "file0: current-context: is missing (give --context=NAME: there are none)"
    )
    assert problem_of("", "# only") == (
        "file0, file1: current-context: is missing (give --context=NAME: there are none)"
    )


def test_files_are_merged_and_the_first_of_duplicate_names_is_used():
    contexts = "current-context: a\ncontexts: [{name: a, context: {cluster: c, user: u}}]\n"
    clusters = (
        "current-context: b\nclusters: [{name: c, cluster: {server: https://c, "
        "certificate-authority: ca.crt}}]\nusers: [{name: u, user: {token: first}}]\n"
    )
    more = "clusters: [{name: c, cluster: {server: https://d}}]\nusers: [{name: u, user: {as: x}}]"
    merged = read("", contexts, clusters, more)
    assert merged.cluster.server == "https://c"
    assert merged.cluster.authority == Content(path="/2/ca.crt")
    assert merged.user == KubeUser(token="first")
    assert merged.place == "file2"


def test_flags_select_a_context_a_cluster_and_a_user():
    text = """
contexts: [{name: a, context: {cluster: c, user: u}}, {name: b, context: {cluster: d, user: v}}]
clusters: [{name: c, cluster: {server: https://c}}, {name: d, cluster: {server: https://d}}]
users: [{name: u, user: {token: u}}, {name: v, user: {token: v}}]
"""

    def chosen(**flags: str) -> tuple[str, str]:
        found = read(text, **flags)
        return found.cluster.server, found.user.token

    assert chosen(context="a") == ("https://c", "u")
    assert chosen(context="b") == ("https://d", "v")
    assert chosen(context="b", cluster="c") == ("https://c", "v")
    assert chosen(context="b", user="u") == ("https://d", "u")
    assert chosen(cluster="d") == ("https://d", "")
    assert chosen(server="e:80", user="u") == ("http://e:80", "")
    for flag, list_, known in (
        ("context", "contexts", "'a', 'b'"),
        ("cluster", "clusters", "'c', 'd'"),
        ("user", "users", "'u', 'v'"),
    ):
        flags = {"context": "a", flag: "x"}
        problem = problem_of(text, **flags)
        assert f"{list_}: --{flag}=x is not among them: known: {known}" in problem


def test_an_explicit_server_replaces_the_clusters_server_and_tls_server_name():
    cluster = {"tls-server-name": "api.test", "insecure-skip-tls-verify": True}
    found = read(config({"token": "t"}, cluster), server="https://other/")
    assert found.cluster.server == "https://other"
    assert found.cluster.tls_server_name == ""
    assert found.cluster.is_insecure
    assert found.user.token == "t"
    assert read(config({"token": "t"}), server="http://other").user == KubeUser()


def test_a_context_with_a_nonexistent_user_has_no_credentials():
    assert read(config().replace('"users"', '"others"')).user == KubeUser()


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("https://a.test", "https://a.test"),
        ("HTTPS://a.test:6443/", "https://a.test:6443"),
        ("https://a.test/k8s/clusters/c-1/?x=1#y", "https://a.test/k8s/clusters/c-1"),
        ("a.test:8080", "http://a.test:8080"),
        ("127.0.0.1:8001", "http://127.0.0.1:8001"),
        ("[::1]:8001/", "http://[::1]:8001"),
    ],
)
def test_a_server_url_is_completed_as_by_client_go(written, expected):
    assert server_url(written) == expected


@pytest.mark.parametrize(
    ("written", "problem"),
    [
        ("a.test:8080/b", "is neither a URL nor host:port"),
        ("ftp://a", "is not an http"),
        ("https://a b", "is not a URL"),
        ("https://a:x", "is not a URL"),
        ("https://a:0", "has no host"),
        ("https://:80", "has no host"),
        ("https://[::1", "is not a URL"),
    ],
)
def test_an_invalid_server_url_is_an_error(written, problem):
    with pytest.raises(ValueError, match=problem):
        server_url(written)


def test_supported_fields_of_a_cluster_are_read():
    cluster = read(
        config(
            {},
            {
                "certificate-authority-data": encoded("authority"),
                "certificate-authority": "preferred/to/it",
                "tls-server-name": "api.test",
                "proxy-url": "http://proxy.test",
                "disable-compression": True,
                "extensions": [
                    {"name": "other", "extension": 1},
                    {"name": "client.authentication.k8s.io/exec", "extension": {"a": [1]}},
                ],
            },
        )
    ).cluster
    assert cluster.authority == Content(b"authority")
    assert (cluster.tls_server_name, cluster.proxy_url) == ("api.test", "http://proxy.test")
    assert cluster.proxy_place == "file0:1: clusters[0].cluster.proxy-url"
    assert cluster.is_uncompressed
    assert cluster.extension == {"a": [1]}


@pytest.mark.parametrize(
    ("cluster", "problem"),
    [
        ({"certificate-authority-data": "!"}, "certificate-authority-data: is not base64"),
        ({"insecure-skip-tls-verify": "true"}, "tls-verify: is neither true nor false"),
        ({"certificate-authority": 5}, "certificate-authority: is not text (quote it)"),
        ({"certificate-authority": "\0"}, "certificate-authority: is not a path"),
        (
            {"insecure-skip-tls-verify": True, "certificate-authority": "ca"},
            "insecure-skip-tls-verify: is given together with a certificate authority (remove one",
        ),
    ],
)
def test_an_invalid_cluster_field_is_rejected(cluster, problem):
    assert problem in problem_of(config({}, cluster))


def test_for_a_server_without_tls_only_impersonation_is_read_from_a_user():
    user = {"token": "t", "as": "x", "auth-provider": {"name": "gcp"}, "client-key": "k"}
    assert user_of(user, server="http://a") == KubeUser(impersonation=(("Impersonate-User", "x"),))


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        (None, {}),
        ({"extensions": [{"name": "x"}]}, {}),
        ({"token": "t\n"}, {"token": "t"}),
        ({"token": "t", "tokenFile": "f"}, {"token": "t", "token_file": "/0/f"}),
        ({"username": "u", "password": "p"}, {"username": "u", "password": "p"}),
        (
            {"client-certificate": "c", "client-key": "/k", "token": "t"},
            {"certificate": Content(path="/0/c"), "key": Content(path="/k"), "token": "t"},
        ),
        (
            {
                "client-certificate": "c",
                "client-certificate-data": encoded("cert"),
                "client-key-data": encoded("key"),
            },
            {"certificate": Content(b"cert"), "key": Content(b"key")},
        ),
        ({"client-key": "k"}, {}),
    ],
)
def test_supported_fields_of_a_user_are_read(user, expected):
    assert user_of(user) == KubeUser(**expected)


@pytest.mark.parametrize(
    ("user", "problem"),
    [
        ({"as-user": "x"}, "user.as-user: is not known, and may change as whom requests are made"),
        ({"Token": "x"}, "user.Token: is not known"),
        ({"token": 5}, "user.token: is not text (quote it)"),
        ({"token": "a\nb"}, "user.token: contains a line break"),
        ({"token": "a", "username": "b"}, "user.username: is given together with a token (remove"),
        ({"tokenFile": "a", "username": "b"}, "user.username: is given together with a token"),
        ({"client-certificate": "c"}, "client-key: is missing, and there is a client-certificate"),
        ({"auth-provider": {"name": "gcp"}}, "'gcp' is not supported (use its exec plugin"),
        ({"auth-provider": {"name": "oidc"}}, "auth-provider.config.id-token: is missing"),
        (
            {"auth-provider": {"name": "oidc", "config": {"id-token": "x"}}},
            "id-token: is not a JWT",
        ),
        ({"as-groups": ["a"]}, "user.as-groups: is given without as (as names the user)"),
        ({"as-uid": "a"}, "user.as-uid: is given without as"),
        ({"as-user-extra": {"a": ["b"]}}, "user.as-user-extra: is given without as"),
        ({"as": "a\r\nb: c"}, "user.as: contains a line break"),
        ({"as": "a", "as-groups": ["a\n"]}, "user.as-groups[0]: contains a line break"),
        ({"as": "a", "as-groups": "b"}, "user.as-groups: is not a list"),
    ],
)
def test_an_invalid_user_field_is_rejected(user, problem):
    assert problem in problem_of(config(user))


def test_impersonation_is_read_as_headers():
    user = {
        "as": "jane",
        "as-uid": "5",
        "as-groups": ["a b", "c"],
        "as-user-extra": {"example.org/Scope%": ["x", "y"], "Ü": ["ü"]},
    }
    assert user_of(user).impersonation == (
        ("Impersonate-User", "jane"),
        ("Impersonate-Uid", "5"),
        ("Impersonate-Group", "a b"),
        ("Impersonate-Group", "c"),
        ("Impersonate-Extra-example.org%2FScope%25", "x"),
        ("Impersonate-Extra-example.org%2FScope%25", "y"),
        ("Impersonate-Extra-%C3%9C", "ü"),
    )
    assert user_of({"as": "", "as-groups": None}).impersonation == ()


def test_the_token_and_expiry_of_an_oidc_provider_are_read_unless_other_credentials_exist():
    def provider(claims: object) -> dict[str, Any]:
        token = f"x.{encoded(json.dumps(claims)).rstrip('=')}.y"
        return {"auth-provider": {"name": "oidc", "config": {"id-token": token}}}

    assert user_of(provider({"exp": 5})).expires == 5
    assert user_of(provider({})).expires is None
    assert user_of(provider({})).token.startswith("x.")
    assert user_of({**provider({"exp": 5}), "token": "t"}) == KubeUser(token="t")
    assert user_of({**provider({}), "username": "u"}).token == ""
    assert "is not a JWT" in problem_of(config(provider([])))


def plugin_of(exec_: dict[str, Any], **user: Any) -> ExecPlugin | None:
    return user_of({"exec": exec_, **user}).plugin


def test_supported_fields_of_a_plugin_are_read():
    assert plugin_of({"command": "plug", "apiVersion": BETA}) == ExecPlugin("plug", BETA)
    assert plugin_of(
        {
            "command": "./plug",
            "apiVersion": V1,
            "interactiveMode": "Always",
            "args": ["a", ""],
            "env": [{"name": "A", "value": "b"}, {"name": "C"}],
            "installHint": "brew\n\x1b[1m install",
            "provideClusterInfo": True,
            "other": 1,
        }
    ) == ExecPlugin(
        "/0/plug",
        V1,
        ("a", ""),
        (("A", "b"), ("C", "")),
        "brew [1m install",
        "Always",
        wants_cluster=True,
    )


@pytest.mark.parametrize(
    "user",
    [
        {"token": "t"},
        {"tokenFile": "f"},
        {"username": "u"},
        {"client-certificate": "c", "client-key": "k"},
    ],
)
def test_a_plugin_is_used_only_without_other_credentials(user):
    assert plugin_of({"command": "plug", "apiVersion": BETA}, **user) is None


@pytest.mark.parametrize(
    ("exec_", "problem"),
    [
        ({"apiVersion": V1}, "exec.command: is missing"),
        ({"command": "x"}, "exec.apiVersion: is missing"),
        ({"command": "x", "apiVersion": "v1alpha1"}, f"'v1alpha1' is not one of {V1}, {BETA}"),
        ({"command": "x", "apiVersion": V1}, "interactiveMode: is missing: one of Never, IfAv"),
        (
            {"command": "x", "apiVersion": BETA, "interactiveMode": "no"},
            "interactiveMode: 'no' is not one of Never, IfAvailable, Always",
        ),
        ({"command": "x", "apiVersion": BETA, "args": [7]}, "exec.args[0]: is not text"),
        ({"command": "x", "apiVersion": BETA, "args": ["\0"]}, "exec.args: contains a NUL"),
        ({"command": "x", "apiVersion": BETA, "env": {}}, "exec.env: is not a list"),
        ({"command": "x", "apiVersion": BETA, "env": [5]}, "exec.env[0].name: is missing"),
        (
            {"command": "x", "apiVersion": BETA, "env": [{"name": "a=b"}]},
            "exec.env[0].name: must not contain =",
        ),
    ],
)
def test_an_invalid_plugin_field_is_rejected(exec_, problem):
    assert problem in problem_of(config({"exec": exec_}))


def test_a_plugin_together_with_an_auth_provider_is_an_error():
    exec_ = {"command": "x", "apiVersion": BETA}
    user = {"exec": exec_, "auth-provider": {"name": "oidc"}}
    assert "auth-provider.name: is given together with exec" in problem_of(config(user))


def test_invalid_entries_outside_the_current_context_are_ignored():
    text = json.loads(config({"token": "t"}))
    text["users"].append({"name": "b", "user": {"token": 5, "unknown": 1}})
    text["clusters"].append({"name": "b", "cluster": 7})
    text["preferences"], text["extensions"] = {"colors": 1}, 5
    assert read(json.dumps(text)).user == KubeUser(token="t")
