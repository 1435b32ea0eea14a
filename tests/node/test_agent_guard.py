"""Proxy ports are for steered traffic alone, whatever the node's firewall says."""

import pytest

from tests.node.clients import ask
from tests.node.manifests import Service, with_endpoints
from tests.node.testbed import CLIENTS, Testbed

pytestmark = pytest.mark.netns

WEB = Service("web", "10.96.0.10")
DNS = Service("dns", "10.96.0.53", 53, "UDP", target=53)
NOBODY = Service("nobody", "10.96.0.30")
NOBODY_UDP = Service("nobody-udp", "10.96.0.31", 53, "UDP")
# What every firewall with such a policy lets in, or the node could not speak to anybody.
DROP = """
    iptables-legacy -A INPUT -i lo -j ACCEPT
    iptables-legacy -A INPUT -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT
    iptables-legacy -P INPUT DROP"""


# The guard of iptables steering lets in what others would drop. A table of nftables can't.
HOUSES = {
    "iptables": ("iptables", ""),
    "iptables-policy-drop": ("iptables", DROP),
    "nftables": ("nftables", ""),
}


@pytest.fixture(scope="module", params=HOUSES)
def testbed(request, tmp_path_factory):
    """A node that serves by rules."""
    steering, firewall = HOUSES[request.param]
    with Testbed(tmp_path_factory.mktemp("agent"), steering, clients=CLIENTS) as testbed:
        testbed.shell(firewall)
        ips = testbed.add_pods("one", tcp=8080, udp=53)
        testbed.serve(with_endpoints(WEB, ips), with_endpoints(DNS, ips), NOBODY, NOBODY_UDP)
        yield testbed


@pytest.fixture
def proxy_ports(testbed):
    """The addresses at which the proxy listens for WEB and DNS."""
    node = str(testbed.node.ip)
    return [(node, testbed.agent.proxy_port(name)) for name in ("web", "dns")]


def test_no_client_can_dial_a_proxy_port_directly(testbed, proxy_ports):
    web, dns = proxy_ports
    said = {
        name: (client.tcp_refusal(web), client.udp_refusal(dns))
        for name, client in testbed.clients.items()
    }
    assert said == dict.fromkeys(testbed.clients, ("refused", "refused"))


def test_services_are_served_anyway(testbed):
    for name, client in testbed.clients.items():
        assert client.get(WEB.address) == "one", name
        assert client.asks(DNS.address) == "one: hello", name


def test_refusals_arrive_anyway(testbed):
    said = {
        name: (client.tcp_refusal(NOBODY.address), client.udp_refusal(NOBODY_UDP.address))
        for name, client in testbed.clients.items()
    }
    assert said == dict.fromkeys(testbed.clients, ("refused", "refused"))


def test_dialling_a_proxy_port_does_not_affect_its_clients(testbed, proxy_ports):
    """A refusal of one client must not end what others have."""
    sock = testbed["pod"].udp(DNS.address)
    assert ask(sock) == b"one: hello"
    assert testbed["laptop"].udp_refusal(proxy_ports[1]) == "refused"
    assert ask(sock) == b"one: hello"
