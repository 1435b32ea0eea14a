import resource

import pytest

from userspace_proxy.cli.all_nodes import settings_of
from userspace_proxy.errors import ConfigError
from userspace_proxy.linux import bounded
from userspace_proxy_kubectl.cli.open_reader import open_reader
from userspace_proxy_kubectl.cli.table import NODES

GIVEN = NODES.read_words([])


def test_without_any_time_nothing_is_asked():
    with pytest.raises(ConfigError, match="--timeout"):
        open_reader(NODES.read_words(["--timeout=0s"]), settings_of(GIVEN))


def test_without_a_kubeconfig_the_remedy_is_said(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(ConfigError, match="there is no kubeconfig"):
        open_reader(GIVEN, settings_of(GIVEN))


def test_as_many_nodes_can_be_followed_as_the_hard_limit_allows(monkeypatch):
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft - 1, hard))
    try:
        open_reader(GIVEN, settings_of(GIVEN))
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (bounded(hard), hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
