"""What the kernel of a namespace says about addresses."""

import pytest

from tests.netns import Net
from userspace_proxy.kernel import own_addresses
from userspace_proxy.kernel.own_addresses import OwnAddressCheck

SETUP = """
ip link add v0 type veth peer name v1
ip link set v0 up
ip link set v1 up
ip address add 198.51.100.1/24 dev v0
ip address add 198.51.100.2/24 dev v0
ip -6 address add 2001:db8::1/64 dev v0 nodad
ip route add 203.0.113.0/24 via 198.51.100.9
ip route add local 192.0.2.0/24 dev lo
ip route add blackhole 192.88.99.0/24
"""


@pytest.fixture
def net():
    made = Net("node")
    made.run(SETUP)
    yield made
    made.close()


@pytest.fixture
def check(net):
    return OwnAddressCheck()


@pytest.mark.parametrize(
    ("ip", "is_own"),
    [
        pytest.param("198.51.100.1", True, id="interface"),
        pytest.param("198.51.100.2", True, id="secondary"),
        pytest.param("198.51.100.255", True, id="broadcast"),
        pytest.param("127.9.9.9", True, id="loopback"),
        pytest.param("192.0.2.77", True, id="local-route"),
        pytest.param("2001:db8::1", True, id="ipv6-interface"),
        pytest.param("::1", True, id="ipv6-loopback"),
        pytest.param("198.51.100.9", False, id="neighbour"),
        pytest.param("203.0.113.1", False, id="gateway"),
        pytest.param("2001:db8::2", False, id="ipv6-neighbour"),
        pytest.param("10.1.2.3", False, id="no-route"),
        pytest.param("192.88.99.1", False, id="blackhole"),
    ],
)
def test_packets_to_this_nodes_addresses_stay_here(net, check, ip, is_own):
    with net:
        assert check.has(ip) is is_own


def test_an_address_is_own_from_the_moment_at_which_it_is_added(net, check):
    with net:
        assert not check.has("198.51.100.9")
    net.run("ip address add 198.51.100.9/24 dev v0")
    assert check.has("198.51.100.9")


def test_if_the_kernel_does_not_answer_an_address_is_taken_for_own(monkeypatch):
    class Silent:
        @staticmethod
        def open(_protocol):
            raise TimeoutError("the kernel doesn't answer")

    monkeypatch.setattr(own_addresses, "Requests", Silent)
    assert OwnAddressCheck().has("203.0.113.1")
