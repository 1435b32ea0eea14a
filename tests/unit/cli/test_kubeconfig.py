"""Tests of which kubeconfig a user's command reads."""

from __future__ import annotations

import pytest

from userspace_proxy.cli import kubeconfig
from userspace_proxy.cli.command import Given
from userspace_proxy.config import Settings
from userspace_proxy.errors import ConfigError
from userspace_proxy.sources.kubernetes.kubeconfig_files import Kubeconfig


@pytest.fixture(autouse=True)
def listed(monkeypatch, tmp_path):
    """The kubeconfig files that the environment variable KUBECONFIG lists."""
    path = tmp_path / "config"
    path.touch()
    monkeypatch.setenv("KUBECONFIG", f"{path}:/more")
    return Kubeconfig((str(path), "/more"), may_be_missing=True, is_attended=True)


def find(settings=None, **values):
    return kubeconfig.find(Given(values), settings or Settings())


def test_an_explicit_kubeconfig_excludes_other_files():
    expected = Kubeconfig(("/mine",), is_attended=True)
    assert find(Settings(kubeconfig="/mine")) == expected
    chosen = find(Settings(kubeconfig="/mine", master="http://a"), context="c", user="u")
    assert chosen == Kubeconfig(("/mine",), context="c", user="u", is_attended=True)


def test_by_default_kubectls_kubeconfig_is_used(listed):
    assert find() == listed
    found = find(cluster="c")
    assert found is not None
    assert (found.paths, found.cluster) == (listed.paths, "c")


def test_with_a_server_flag_kubectls_file_is_opened_only_for_an_explicit_user_or_context(listed):
    settings = Settings(master="http://a")
    assert find(settings) is None
    found = find(settings, user="u")
    assert found is not None
    assert found.user == "u"


def test_choosing_a_user_requires_a_kubeconfig(monkeypatch):
    monkeypatch.setenv("KUBECONFIG", ":")
    assert find() is None
    with pytest.raises(ConfigError, match="--user: there is no kubeconfig"):
        find(user="u")


def test_missing_kubeconfig_files_are_named_if_all_are_missing(monkeypatch):
    monkeypatch.setenv("KUBECONFIG", ":/missing:/nowhere")
    with pytest.raises(ConfigError, match=r"^KUBECONFIG=/missing:/nowhere: no such file"):
        find()
    assert find(Settings(master="http://a")) is None
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.96.0.1")
    assert find() is None


def test_the_flags_of_a_kubeconfig_select_the_same_entries_again(tmp_path):
    one = Kubeconfig(("/mine",), context="c", user="u")
    assert kubeconfig.flags_of(one) == {"kubeconfig": "/mine", "context": "c", "user": "u"}
    path = tmp_path / "whole"
    context = "{name: a, context: {cluster: b}}"
    cluster = "{name: b, cluster: {server: a}}"
    path.write_text(f"current-context: a\ncontexts: [{context}]\nclusters: [{cluster}]\n")
    two = Kubeconfig((str(path), "/more"), may_be_missing=True)
    assert kubeconfig.flags_of(two) == {"context": "a"}


def test_the_kubeconfig_flags_have_the_names_of_kubectls_flags():
    assert [flag.name for flag in kubeconfig.FLAGS] == ["context", "cluster", "user"]
    assert kubeconfig.given_choices(Given({"user": "u", "output": "json"})) == {"user": "u"}
