"""Clients of a running agent, in every steering mode and from every location."""

from collections import Counter

import pytest

from tests.node.clients import Client
from tests.node.manifests import Service, with_endpoints
from tests.node.testbed import CLIENTS, Testbed, steerings

pytestmark = pytest.mark.netns

WEB_PODS = ("web-1", "web-2", "web-3")
DNS_PODS = ("dns-1", "dns-2")
NOT_BARE = tuple(name for name in CLIENTS if name != "bare-pod")
# While a pod's link has no address, the agent's rules in PREROUTING differ: they use DNAT.
HOUSES = {
    "nftables-redirect": ("nftables", NOT_BARE),
    "iptables-redirect": ("iptables", NOT_BARE),
    "iptables-dnat": ("iptables", CLIENTS),
    "nftables-dnat": ("nftables", CLIENTS),
    "local": ("local", CLIENTS),
}

WEB = Service("web", "10.96.0.10")
DNS = Service("dns", "10.96.0.53", 53, "UDP", target=53)
UDP_ECHO = Service("udp-echo", "10.96.0.44", 7, "UDP", target=54)
OWN_POD = Service("own-pod", "10.96.0.50")
OWN_BRIDGE_POD = Service("own-bridge-pod", "10.96.0.51")


@pytest.fixture(scope="module", params=steerings(*HOUSES))
def testbed(request, tmp_path_factory):
    """A node whose agent serves all Services above."""
    steering, clients = HOUSES[request.param]
    with Testbed(tmp_path_factory.mktemp("agent"), steering, clients=clients) as testbed:
        web = testbed.add_pods(*WEB_PODS, tcp=8080)
        dns = testbed.add_pods(*DNS_PODS, udp=53)
        tools = testbed.add_pods("tools", udp_echo=54)
        endpoints = {WEB: web, DNS: dns, UDP_ECHO: tools}
        for own, name in {OWN_POD: "pod", OWN_BRIDGE_POD: "bridge-pod"}.items():
            testbed.pod(name).serve(tcp=8080)
            endpoints[own] = [testbed.ip(name)]
        testbed.serve(*(with_endpoints(service, ips) for service, ips in endpoints.items()))
        yield testbed


@pytest.fixture(autouse=True)
def _hang_up(testbed):
    yield
    testbed.hang_up()


def assert_fair(testbed, answers, count, name):
    """Fail unless all endpoints were dialled about equally often: each worker balances alone."""
    counts = Counter(answers)
    workers = len(testbed.agent.status()["workers"])
    assert len(counts) == count, (name, counts)
    # Allow one more, because an unanswered client may ask again between other clients' turns.
    assert max(counts.values()) - min(counts.values()) <= workers + 1, (name, counts)


def test_tcp_clients_everywhere_are_balanced_evenly_over_all_endpoints(testbed):
    for name, client in testbed.clients.items():
        assert_fair(testbed, [client.get(WEB.address) for _ in range(15)], 3, name)


def test_udp_clients_everywhere_are_balanced_evenly_over_all_endpoints(testbed):
    for name, client in testbed.clients.items():
        assert_fair(testbed, [client.asks(DNS.address) for _ in range(10)], 2, name)


def test_a_pod_reaches_itself_through_its_service(testbed):
    assert testbed["pod"].get(OWN_POD.address) == "pod"
    assert testbed["bridge-pod"].get(OWN_BRIDGE_POD.address) == "bridge-pod"


def test_pods_on_one_bridge_reach_each_other_through_a_service(testbed):
    testbed.sandbox.add_pod("bridge-neighbour", "bridge")
    neighbour = Client(testbed.pod("bridge-neighbour"))
    assert neighbour.get(OWN_BRIDGE_POD.address) == "bridge-pod"
    neighbour.close()
