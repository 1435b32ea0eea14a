import pytest

from userspace_proxy.dataplane.client_ports import ClientPorts
from userspace_proxy.model import SocketAddress

ALICE, BOB = "10.1.0.1", "10.1.0.2"
POD, OTHER = SocketAddress("10.1.0.8", 53), SocketAddress("10.1.0.9", 53)


@pytest.fixture
def ports():
    return ClientPorts(61000, 61002)


def test_ports_are_taken_in_turn(ports):
    first = [ports.next() for _ in range(3)]
    assert sorted(first) == [61000, 61001, 61002]
    assert [ports.next() for _ in range(3)] == first


def test_flows_of_a_port_are_known_until_they_are_removed(ports):
    ports.take(ALICE, 61000, POD)
    ports.take(ALICE, 61000, OTHER)
    assert ports.endpoints(ALICE, 61000) == (POD, OTHER)
    ports.give(ALICE, 61000, POD)
    assert ports.endpoints(ALICE, 61000) == (OTHER,)
    ports.give(ALICE, 61000, OTHER)
    assert ports.endpoints(ALICE, 61000) == ()
    assert ports._endpoints == {}


def test_removing_an_unknown_flow_does_nothing(ports):
    ports.take(ALICE, 61000, POD)
    ports.give(ALICE, 61000, OTHER)
    ports.give(BOB, 40000, POD)
    assert ports.endpoints(ALICE, 61000) == (POD,)
