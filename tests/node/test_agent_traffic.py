"""What clients get from a running agent: every steering, every place that a client can be in."""

import hashlib
import socket
import struct
from collections import Counter

import pytest

from tests.cluster.waiting import wait_for
from tests.node.clients import DEADLINE_S, Client, ask, listen, read_all
from tests.node.manifests import Service, with_endpoints
from tests.node.testbed import CLIENTS, Testbed, steerings
from userspace_proxy_testing.sandbox.backends import pattern

pytestmark = pytest.mark.netns

WEB_PODS = ("web-1", "web-2", "web-3")
DNS_PODS = ("dns-1", "dns-2")
NOT_BARE = tuple(name for name in CLIENTS if name != "bare-pod")
# While a pod's link has no address the agent's rules in PREROUTING are others: DNAT.
HOUSES = {
    "nftables-redirect": ("nftables", NOT_BARE),
    "iptables-redirect": ("iptables", NOT_BARE),
    "iptables-dnat": ("iptables", CLIENTS),
    "nftables-dnat": ("nftables", CLIENTS),
    "local": ("local", CLIENTS),
}

WEB = Service("web", "10.96.0.10")
DNS = Service("dns", "10.96.0.53", 53, "UDP", target=53)
ECHO = Service("echo", "10.96.0.40", 7, target=81)
SUM = Service("sum", "10.96.0.41", 7, target=82)
EARS = Service("ears", "10.96.0.45", 7, target=9000)
UDP_ECHO = Service("udp-echo", "10.96.0.44", 7, "UDP", target=54)
OWN_POD = Service("own-pod", "10.96.0.50")
OWN_BRIDGE_POD = Service("own-bridge-pod", "10.96.0.51")


@pytest.fixture(scope="module", params=steerings(*HOUSES))
def testbed(request, tmp_path_factory):
    """A node whose agent serves all of the above."""
    steering, clients = HOUSES[request.param]
    with Testbed(tmp_path_factory.mktemp("agent"), steering, clients=clients) as testbed:
        web = testbed.add_pods(*WEB_PODS, tcp=8080)
        dns = testbed.add_pods(*DNS_PODS, udp=53)
        tools = testbed.add_pods("tools", echo=81, sum=82, udp_echo=54)
        endpoints = {WEB: web, DNS: dns, **dict.fromkeys((ECHO, SUM, EARS, UDP_ECHO), tools)}
        for own, name in {OWN_POD: "pod", OWN_BRIDGE_POD: "bridge-pod"}.items():
            testbed.pod(name).serve(tcp=8080)
            endpoints[own] = [testbed.ip(name)]
        testbed.serve(*(with_endpoints(service, ips) for service, ips in endpoints.items()))
        yield testbed


@pytest.fixture(autouse=True)
def _hang_up(testbed):
    yield
    testbed.hang_up()


@pytest.fixture
def pod(testbed):
    return testbed["pod"]


@pytest.fixture
def ears(testbed):
    """The endpoint of EARS, in the test's own hands."""
    with listen(testbed.pod("tools"), 9000) as server:
        yield server


def assert_fair(testbed, answers, count, name):
    """Fail unless ``count`` endpoints were asked equally often, as far as workers can know."""
    counts = Counter(answers)
    workers = len(testbed.agent.status()["workers"])
    assert len(counts) == count, (name, counts)
    # One more, as somebody else's turn may come in between: who gets no answer asks again.
    assert max(counts.values()) - min(counts.values()) <= workers + 1, (name, counts)


def test_clients_everywhere_are_served_by_all_endpoints_alike(testbed):
    for name, client in testbed.clients.items():
        assert_fair(testbed, [client.get(WEB.address) for _ in range(15)], 3, name)


def test_udp_clients_everywhere_are_served_by_all_endpoints_alike(testbed):
    for name, client in testbed.clients.items():
        assert_fair(testbed, [client.asks(DNS.address) for _ in range(10)], 2, name)


def test_a_pod_reaches_itself_through_its_own_service(testbed):
    assert testbed["pod"].get(OWN_POD.address) == "pod"
    assert testbed["bridge-pod"].get(OWN_BRIDGE_POD.address) == "bridge-pod"


def test_pods_of_one_bridge_reach_each_other_through_a_service(testbed):
    testbed.sandbox.add_pod("bridge-neighbour", "bridge")
    neighbour = Client(testbed.pod("bridge-neighbour"))
    assert neighbour.get(OWN_BRIDGE_POD.address) == "bridge-pod"
    neighbour.close()


def test_a_reply_after_the_clients_fin_arrives(testbed):
    expected = f"{hashlib.sha256(b'question').hexdigest()} 8\n".encode()
    for name, client in testbed.clients.items():
        connection = client.dial(SUM.address)
        connection.sendall(b"question")
        connection.shutdown(socket.SHUT_WR)
        assert read_all(connection) == expected, name


def test_a_clients_reset_arrives_as_a_reset(pod, ears):
    """Seen by an endpoint of ours, because a backend has nobody to tell."""
    connection = pod.dial(EARS.address)
    connection.sendall(b"x")
    accepted, _ = ears.accept()
    with accepted:
        accepted.settimeout(DEADLINE_S)
        assert accepted.recv(1) == b"x"
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()
        with pytest.raises(ConnectionResetError):
            accepted.recv(1)


@pytest.mark.parametrize("size", [0, 1, 1472, 1473, 9000, 65507])
def test_a_datagram_passes_unchanged_both_ways_whatever_its_size(testbed, size):
    sent = b"".join(pattern(size))
    for name, client in testbed.clients.items():
        assert ask(client.udp(UDP_ECHO.address), sent) == sent, name


def test_the_page_counts_what_clients_did(testbed, pod):
    def counted():
        (endpoint,) = testbed.agent.port("echo")["endpoints"]
        return Counter({k: endpoint[k] for k in ("connections", "received_bytes", "sent_bytes")})

    before = counted()
    connection = pod.dial(ECHO.address)
    connection.sendall(b"four")
    connection.shutdown(socket.SHUT_WR)
    assert read_all(connection) == b"four"
    expected = before + Counter(connections=1, received_bytes=4, sent_bytes=4)
    wait_for("the counters", lambda: counted() == expected, hint=lambda: str(counted()))
