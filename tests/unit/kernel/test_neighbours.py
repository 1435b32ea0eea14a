"""The neighbour table of a real kernel."""

import errno

import pytest

from tests.netns import Net
from userspace_proxy.kernel.neighbours import absent_hop, next_hop, own_route_failure
from userspace_proxy.kernel.netlink import rtnetlink
from userspace_proxy.model import Failure
from userspace_proxy.model.failures import dial_failure
from userspace_proxy.model.node_network import NextHop

HOP = NextHop("eth9")
# The other end of the link is up, but doesn't answer ARP requests.
LINK = (
    "ip link add eth9 type veth peer name far9; ip link set eth9 up; ip link set far9 up; "
    "sysctl -qw net.ipv4.conf.far9.arp_ignore=8; ip address add 10.99.0.1/24 dev eth9"
)


@pytest.fixture
def node():
    net = Net("node")
    with net:
        net.run(LINK)
        yield net
    net.close()


def test_an_unassigned_address_is_absent_on_its_link(node):
    node.run("ip neighbour add 10.99.0.8 lladdr 02:00:00:00:00:08 dev eth9")
    with node.udp() as sock:
        sock.sendto(b"question", ("10.99.0.77", 53))
        sock.sendto(b"question", ("10.99.0.8", 53))
    assert [absent_hop(ip) for ip in ("10.99.0.77", "10.99.0.8")] == [HOP, None]


def test_an_absent_next_hop_is_looked_up_on_the_link_of_its_route(node):
    node.run("ip link add eth8 type veth peer name far8; ip link set eth8 up")
    node.run("ip neighbour add 10.99.0.8 lladdr 02:00:00:00:00:08 dev eth9")
    # Add failed entries on other links, and for a host behind a gateway.
    node.run("ip neighbour add 10.99.0.8 nud failed dev eth8")
    node.run("ip neighbour add 10.98.0.1 nud failed dev eth9")
    node.run("ip route add 10.98.0.0/24 via 10.99.0.8")
    with node.udp() as sock:
        sock.sendto(b"question", ("10.99.0.77", 53))
    asked = ("10.99.0.77", "10.99.0.8", "10.99.0.78", "10.98.0.1", "10.97.0.1")
    assert [ip for ip in asked if absent_hop(ip)] == ["10.99.0.77"]
    # Remove the neighbour entries, on which the next hop doesn't depend.
    node.run("ip neighbour flush dev eth9 nud incomplete nud failed")
    assert [next_hop(ip) for ip in asked] == [HOP, HOP, HOP, NextHop("eth9", "10.99.0.8"), None]


@pytest.mark.parametrize(
    ("via", "ip", "gateway"),
    [
        ("10.98.0.0/24 via 10.99.0.66", "10.98.0.1", "10.99.0.66"),
        ("10.98.0.0/24 via inet6 fe80::66 dev eth9", "10.98.0.1", "fe80::66"),
        ("fd00:98::/64 via fe80::66 dev eth9", "fd00:98::1", "fe80::66"),
    ],
    ids=["ipv4", "ipv4-via-ipv6", "ipv6"],
)
def test_behind_an_unassigned_gateway_an_address_is_absent(node, via, ip, gateway):
    node.run(f"ip route add {via}")
    assert absent_hop(ip) is None
    node.run(f"ip neighbour add {gateway} nud failed dev eth9")
    assert absent_hop(ip) == NextHop("eth9", gateway)


def test_a_kernel_that_only_lists_neighbours_reports_no_absent_host(node, monkeypatch):
    with node.udp() as sock:
        sock.sendto(b"question", ("10.99.0.77", 53))
    assert absent_hop("10.99.0.77") == HOP
    # Linux 4.20 answers this request like a request of an unknown type.
    monkeypatch.setattr(rtnetlink, "find_neighbour", lambda *_: rtnetlink.request(4000, 0, b""))
    assert absent_hop("10.99.0.77") is None


@pytest.mark.parametrize("ip", ["10.97.0.1", "fd00:97::1"])
def test_dial_errors_are_attributed_to_the_nodes_routes_only_if_routes_cause_them(node, ip):
    version = "-6" if ":" in ip else "-4"
    numbers = errno.ENETUNREACH, errno.EACCES, errno.EHOSTUNREACH, errno.ECONNREFUSED
    failed = [dial_failure(number, ip) for number in numbers]

    def own_failures():
        return [own_route_failure(each, ip).failure for each in failed]

    network, prohibited, host, refused = before = [each.failure for each in failed]
    assert own_failures() == [Failure.NO_ROUTE, prohibited, host, refused]
    node.run(f"ip route add {ip} dev eth9")
    assert own_failures() == before
    node.run(f"ip route replace unreachable {ip}")
    assert own_failures() == [network, prohibited, Failure.ROUTE_UNREACHABLE, refused]
    node.run(f"ip route replace prohibit {ip}")
    assert own_failures() == [network, Failure.ROUTE_PROHIBITS, host, refused]
    node.run(f"ip route del {ip}; ip {version} rule add to {ip} prohibit")
    assert own_failures() == [network, Failure.ROUTE_PROHIBITS, host, refused]
    node.run(f"ip {version} rule del to {ip} prohibit; ip route add blackhole {ip}")
    assert own_failures() == before
