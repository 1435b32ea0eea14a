"""The source address that endpoints see: the client's if replies return through the node."""

import contextlib

import pytest

from tests.node.clients import DEADLINE_S
from tests.node.endpoints import (
    PROTOCOLS,
    SEEN,
    TARGET,
    VERSIONS,
    EndpointWorld,
)
from tests.node.testbed import CLIENTS, Testbed, steerings
from userspace_proxy.diagnosis.failures import DENIALS

pytestmark = pytest.mark.netns
NEEDS = {("bridge-pod", "bridged"): [pytest.mark.needs("bridge tables")]}
PAIRS = [pytest.param(*pair, marks=NEEDS.get(pair, [])) for pair in SEEN]


@pytest.fixture(scope="module", params=steerings("nftables", "iptables", "local"))
def world(request, tmp_path_factory):
    flags = ("--workers=1", "--connection-log=1")
    folder = tmp_path_factory.mktemp("agent")
    with Testbed(folder, request.param, *flags, clients=CLIENTS) as testbed:
        world = EndpointWorld(testbed)
        yield world
        world.close()


@pytest.fixture(autouse=True)
def _hang_up(request):
    yield
    if "world" in request.fixturenames:
        request.getfixturevalue("world").testbed.hang_up()


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(("client", "endpoint"), PAIRS)
def test_an_endpoint_sees_its_client_if_replies_return(world, client, endpoint, protocol, version):
    """For clients on the node, the expected address is the node's, which is their own."""
    assert world.saw(client, endpoint, protocol, version) == SEEN[client, endpoint]


def shown(world, name):
    """Return a Service's IPv4 TCP port from the status JSON."""
    return world.testbed.agent.port(name, protocol="TCP", family="IPv4", side="")


def test_a_client_denied_by_an_endpoint_is_denied_through_the_service(world):
    """As with a network policy, the endpoint's own kernel drops packets of one client."""
    testbed, endpoint = world.testbed, world.endpoints["routed"]
    address, denied = world.address("pod", "routed", 4), testbed["pod"]
    rules = f"""table ip denied {{
        chain input {{
            type filter hook input priority 0
            ip saddr {denied.host.ip} drop
        }}
    }}
    """
    endpoint.host.run(["nft", rules])
    try:
        with denied.tcp() as direct:
            direct.settimeout(1)
            with pytest.raises(TimeoutError):
                direct.connect((endpoint.ip(4), TARGET))
        failures = shown(world, "routed")["endpoints"][0]["failures"]
        for _ in range(DENIALS):
            with denied.tcp() as dialling:
                dialling.connect(address)
                with pytest.raises(ConnectionResetError):
                    dialling.recv(1)
        asking = denied.udp(address)
        asking.settimeout(1)
        asking.send(b"question")
        with pytest.raises(TimeoutError):
            asking.recv(100)
        # All other clients are served as before.
        for other in ("bridge-pod", "node-1", "laptop"):
            assert world.saw(other, "routed", "TCP", 4) in ("client", "node")
        (state,) = shown(world, "routed")["endpoints"]
        assert state["failures"] == failures + DENIALS
        assert state["ejected_for_s"] is None
        assert state["cause"]["code"] == "endpoint-denies"
        assert str(denied.host.ip) in state["cause"]["sentence"]
        assert f"answers this node, but did not answer {denied.host.ip}" in testbed.agent.log()
    finally:
        endpoint.host.run(["nft", "delete table ip denied"])
        drain(endpoint)
    assert world.saw("pod", "routed", "TCP", 4) == "client"
    assert shown(world, "routed")["endpoints"][0]["cause"] is None


def drain(endpoint):
    """Read and drop everything in the queues of an endpoint's servers."""
    for (protocol, _), server in endpoint.servers.items():
        server.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                if protocol == "TCP":
                    server.accept()[0].close()
                else:
                    server.recv(100)
        server.settimeout(DEADLINE_S)
