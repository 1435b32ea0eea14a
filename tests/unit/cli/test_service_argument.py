"""Tests of parsing a command's Service argument, written as for kubectl."""

import pytest

from userspace_proxy.cli.command import Given
from userspace_proxy.cli.service_argument import NoSuchService, ServiceArguments, first_found
from userspace_proxy.config import Settings
from userspace_proxy.errors import ConfigError, SourceError


@pytest.fixture
def kubeconfig(tmp_path, monkeypatch):
    """A kubeconfig with two contexts: the current one has the namespace shop, the other none."""
    path = tmp_path / "config"
    path.write_text(
        "current-context: a\n"
        "contexts:\n"
        "- {name: a, context: {cluster: a, namespace: shop}}\n"
        "- {name: b, context: {cluster: a}}\n"
        "clusters: [{name: a, cluster: {server: 'http://127.0.0.1:1'}}]\n"
    )
    monkeypatch.setenv("KUBECONFIG", str(path))
    return path


@pytest.fixture
def as_plugin(kubeconfig, monkeypatch):
    monkeypatch.setattr("sys.argv", ["/usr/bin/kubectl-userspace_proxy"])


def names(word, *, may_be_namespace=False, **flags):
    given = Given({name.replace("_", "-"): value for name, value in flags.items()})
    return list(ServiceArguments(given).names(word, may_be_namespace=may_be_namespace))


def selected(*words, **flags):
    given = Given({name.replace("_", "-"): value for name, value in flags.items()}, words)
    return list(ServiceArguments(given).selected())


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("shop/web", ["shop/web"]),
        ("shop/web:http", ["shop/web:http"]),
        ("web", ["default/web"]),
        ("web:80", ["default/web:80"]),
        ("svc/web", ["default/web", "svc/web"]),
        ("service/web:80", ["default/web:80", "service/web:80"]),
        ("services/web", ["default/web", "services/web"]),
        ("web.shop", ["shop/web"]),
        ("svc.shop.svc", ["shop/svc"]),
        ("web.shop.svc.example.org.:80", ["shop/web:80"]),
        ("db-0.db.shop.svc.cluster.local", ["shop/db"]),
        ("http://web.shop:8080/prices?q=1", ["shop/web:8080"]),
        ("https://user@web.shop.svc/", ["shop/web"]),
        ("svc/web.shop:80", ["shop/web:80", "svc/web.shop:80"]),
    ],
)
def test_an_argument_is_parsed_as_a_service_name(word, expected):
    assert names(word) == expected


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("10.96.7.7", "status --search=10.96.7.7"),
        ("10.96.7.7:80", "status --search=10.96.7.7"),
        ("http://10.96.7.7:80/", "status --search=10.96.7.7"),
        ("[fd00::7]:80", "status --search=fd00::7"),
        ("fd00::7", "status --search=fd00::7"),
        ("deploy/web", "web is the Service of that name"),
        ("pod/web-1", "write one that leads to it"),
        ("deployment.apps/web", "web is the Service of that name"),
        ("svc/10.96.7.7", "status --search=10.96.7.7"),
        ("www.example.org", "NAMESPACE/NAME"),
    ],
)
def test_an_invalid_service_name_is_rejected_with_a_suggestion(word, hint):
    with pytest.raises(ConfigError) as caught:
        names(word)
    assert hint in caught.value.hint


def test_the_suggested_address_search_queries_the_same_proxy_or_cluster():
    given = Given({"server": "node-1:10249", "context": "prod"}, settings=("--kubeconfig=my conf",))
    with pytest.raises(ConfigError) as caught:
        ServiceArguments(given).names("10.96.7.7")
    flags = "--server=node-1:10249 '--kubeconfig=my conf' --context=prod"
    assert f"status --search=10.96.7.7 {flags}` shows" in caught.value.hint


@pytest.mark.parametrize("word", ["/web", "shop/", "a/b/c", "svc/a/b", ":80", "web:"])
def test_a_malformed_service_name_is_rejected(word):
    with pytest.raises(ConfigError, match="is not a Service"):
        names(word)


def test_an_argument_can_be_a_namespace_where_allowed():
    assert names("shop", may_be_namespace=True) == ["default/shop", "shop"]
    assert names("shop:80", may_be_namespace=True) == ["default/shop:80"]
    assert names("svc/web", may_be_namespace=True) == ["default/web", "svc/web"]


def test_the_namespace_flag_applies_to_names_without_a_namespace():
    assert names("web", namespace="shop") == ["shop/web"]
    assert names("cart/web", namespace="shop") == ["cart/web"]
    assert selected(namespace="shop") == ["shop"]
    assert selected("web", namespace="shop") == ["shop/web", "web"]
    assert selected(namespace="shop", all_namespaces="true") == [""]
    for name in ("shop/web", "shop:80"):
        with pytest.raises(ConfigError, match=f"'{name}' is not the name of a namespace"):
            selected(namespace=name)


def test_without_a_namespace_all_namespaces_are_shown(kubeconfig):
    assert selected() == [""]
    assert names("web") == ["default/web"]


def test_a_kubectl_plugin_uses_the_contexts_namespace(as_plugin):
    assert selected() == ["shop"]
    assert names("web") == ["shop/web"]
    assert names("web", namespace="cart") == ["cart/web"]
    assert selected(all_namespaces="true") == [""]


def test_a_plugin_without_a_kubeconfig_uses_no_namespace(as_plugin, monkeypatch, tmp_path):
    monkeypatch.delenv("KUBECONFIG")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert (selected(), names("web")) == ([""], ["default/web"])


def test_a_chosen_context_sets_the_namespace(kubeconfig):
    assert selected(context="a") == ["shop"]
    assert names("web", context="a") == ["shop/web"]
    assert selected(context="b") == ["default"]
    with pytest.raises(SourceError, match="--context=c is not among them"):
        selected(context="c")


def test_a_kubeconfig_flag_sets_the_namespace(kubeconfig):
    path = str(kubeconfig)
    for origin, expected in (("flag", "shop"), ("file", "")):
        settings = Settings(kubeconfig=path, origins={"kubeconfig": origin})
        assert ServiceArguments(Given({}), settings).namespace == expected


def test_a_name_with_a_namespace_reads_no_kubeconfig(as_plugin, kubeconfig):
    kubeconfig.write_text("{")
    assert names("shop/web") == ["shop/web"]
    with pytest.raises(SourceError):
        names("web")


def test_with_all_namespaces_a_name_must_include_its_namespace():
    for may_be_namespace in (True, False):
        with pytest.raises(ConfigError, match=r"namespace is not given \(write NAMESPACE/web\)"):
            names("web", all_namespaces="true", may_be_namespace=may_be_namespace)
    assert names("shop/web", all_namespaces="true") == ["shop/web"]


def test_the_first_candidate_name_that_exists_is_used():
    def ask(name):
        if name.startswith("default"):
            raise NoSuchService(f"no {name}")
        return len(name)

    assert first_found(["default/shop", "shop"], ask) == ("shop", 4)
    with pytest.raises(NoSuchService, match="no default/a"):
        first_found(["default/a", "default/b"], ask)
