"""The neighbour table of a real kernel."""

import pytest

from tests.netns import Net
from userspace_proxy.kernel.neighbours import AbsentHosts, absent_hosts

# Another end is up, and answers no ARP.
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


def test_an_address_that_no_host_has_is_absent_on_its_link(node):
    node.run("ip neighbour add 10.99.0.8 lladdr 02:00:00:00:00:08 dev eth9")
    with node.udp() as sock:
        sock.sendto(b"question", ("10.99.0.77", 53))
        sock.sendto(b"question", ("10.99.0.8", 53))
    assert absent_hosts() == {"10.99.0.77": "eth9"}


def test_without_failed_look_ups_nothing_is_absent(node):
    assert absent_hosts() == {}


def test_a_large_table_is_read_rarely():
    now, reads = [10.0], []

    def read():
        reads.append(now[0])
        now[0] += 0.1
        return {"10.99.0.77": "eth9"}

    absent = AbsentHosts(read, lambda: now[0])
    assert [absent.includes(ip) for ip in ("10.99.0.77", "10.99.0.8")] == [True, False]
    now[0] += 1.9
    assert absent.includes("10.99.0.77")
    assert reads == [10.0]
    now[0] += 0.2
    assert absent.includes("10.99.0.77")
    assert len(reads) == 2
