"""Fixtures of the steering tests, which run in the node's network namespace."""

import pytest
import steering_nodes as nodes
from steering_replies import Catching
from steering_traffic import FACTS

from tests.node.testbed import steerings
from userspace_proxy.steering import make_steering


@pytest.fixture
def lock_file(tmp_path, monkeypatch):
    path = tmp_path / "xtables.lock"
    monkeypatch.setenv("XTABLES_LOCKFILE", str(path))
    return path


@pytest.fixture
def cluster(lock_file):
    nodes.need_namespaces()
    cluster = nodes.Cluster()
    with cluster.node:
        yield cluster
    cluster.close()


@pytest.fixture
def node(cluster):
    return cluster.node


@pytest.fixture(params=steerings("nftables", "iptables"))
def kind(request):
    return request.param


@pytest.fixture
async def steering(node, kind):
    steering = make_steering(kind, FACTS)
    await steering.start()
    yield steering
    await steering.close()


@pytest.fixture
def web(cluster):
    """The proxy's listener for WEB."""
    with nodes.proxy_listener(cluster.node, 36001) as server:
        yield server


@pytest.fixture
def dns(cluster):
    """The proxy's UDP server for DNS."""
    server = nodes.UdpServer(cluster.node, 36002)
    yield server
    server.close()


@pytest.fixture
def catching(cluster):
    """Reply routing on the node."""
    with Catching(cluster) as catching:
        yield catching
