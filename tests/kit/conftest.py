from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.unit.conftest import pytest_runtest_setup, run
from userspace_proxy_testing.kubernetes_services import KubernetesServices
from userspace_proxy_testing.service_network import ServiceNetwork
from userspace_proxy_testing.service_proxy import ServiceProxy

from .clusters import FakeCluster

__all__ = ["pytest_runtest_setup", "run"]


@pytest.fixture
def proxy():
    with ServiceProxy() as proxy:
        yield proxy


@pytest.fixture(scope="module")
def network():
    """A network that the tests of a module share."""
    with ServiceNetwork() as network:
        yield network


@pytest.fixture
def cluster(tmp_path, monkeypatch) -> Iterator[FakeCluster]:
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("SSL_CERT_FILE", "/dev/null")
    monkeypatch.setenv("SSL_CERT_DIR", "/dev/null")
    cluster = FakeCluster(tmp_path)
    yield cluster
    cluster.close()


@pytest.fixture
def services(cluster) -> Iterator[KubernetesServices]:
    with KubernetesServices(str(cluster.kubeconfig)) as services:
        yield services
