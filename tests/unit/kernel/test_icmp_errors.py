"""ICMP errors of a real kernel: a node, and a router behind a link."""

import errno
import os
import select
import socket

import pytest

from tests.netns import DEADLINE_S, Net
from userspace_proxy.kernel.icmp_errors import keep_icmp_errors, take_icmp_errors

# On this link ARP is tried once, and fails at once.
QUICK = "sysctl -qw net.ipv4.neigh.eth9.mcast_solicit=1 net.ipv4.neigh.eth9.retrans_time_ms=10"
ROUTER, ABSENT, BEHIND = "10.99.0.2", "10.99.0.77", "10.98.0.1"
MAC = "02:00:00:00:00:02"


@pytest.fixture
def node():
    node, router = Net("node"), Net("router")
    node.run(f"""
        ip link add eth9 type veth peer name far9 address {MAC}
        ip link set far9 netns /proc/{os.getpid()}/fd/{router.fd}
        ip link set eth9 up; ip address add 10.99.0.1/24 dev eth9; {QUICK}
        ip neighbour add {ROUTER} lladdr {MAC} dev eth9
        ip route add 10.98.0.0/16 via {ROUTER}; ip route add 10.97.0.0/16 via {ROUTER}
        """)
    router.run(f"""
        sysctl -qw net.ipv4.ip_forward=1
        ip link set far9 up; ip address add {ROUTER}/24 dev far9
        ip route add unreachable 10.98.0.0/16; ip route add 10.97.0.0/16 via 10.99.0.1
        """)
    for net, link in ((node, "eth9"), (router, "far9")):
        # The kernel drops packets until it has noticed that the link is up.
        net.run(f"until ip -brief link show {link} | grep -q ' UP '; do :; done")
    yield node
    node.close()
    router.close()


def error_of(node, ip, *, hops=64):
    """Return what a datagram to a port without a listener meets."""
    with node.udp() as sock:
        keep_icmp_errors(sock)
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, hops)
        sock.connect((ip, 53))
        sock.setblocking(False)
        assert take_icmp_errors(sock) is None
        sock.send(b"question")
        poll = select.poll()
        poll.register(sock, select.POLLERR)
        assert poll.poll(DEADLINE_S * 1000)
        found = take_icmp_errors(sock)
        assert poll.poll(0) == [], "the queue is empty"
        with pytest.raises(BlockingIOError):
            sock.recv(1)
        return found


@pytest.mark.parametrize(
    ("ip", "number"),
    [
        pytest.param(ABSENT, errno.EHOSTUNREACH, id="no-host-answers-arp"),
        pytest.param(BEHIND, errno.EHOSTUNREACH, id="a-router-has-no-route"),
        pytest.param(ROUTER, errno.ECONNREFUSED, id="nothing-listens"),
    ],
)
def test_an_error_about_the_other_side_is_its_errno(node, ip, number):
    assert error_of(node, ip) == number


def test_an_exceeded_hop_limit_is_no_refusal(node):
    assert error_of(node, "10.97.0.1", hops=1) == 0


def test_a_datagram_that_is_too_large_is_no_refusal(node):
    with node.udp() as sock:
        keep_icmp_errors(sock)
        # IP_MTU_DISCOVER, IP_PMTUDISC_DO: never in fragments.
        sock.setsockopt(socket.IPPROTO_IP, 10, 2)
        sock.connect((ROUTER, 53))
        sock.setblocking(False)
        with pytest.raises(OSError, match="Message too long"):
            sock.send(bytes(3000))
        assert take_icmp_errors(sock) == 0


def test_ipv6_reports_errors_likewise(node):
    with node.udp(socket.AF_INET6) as sock:
        keep_icmp_errors(sock)
        sock.connect(("::1", 53))
        sock.setblocking(False)
        sock.send(b"question")
        poll = select.poll()
        poll.register(sock, select.POLLERR)
        assert poll.poll(DEADLINE_S * 1000)
        assert take_icmp_errors(sock) == errno.ECONNREFUSED
