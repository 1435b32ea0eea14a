"""Which flows have an endpoint that no host has, by a neighbour table and a clock of the test."""

from types import SimpleNamespace

import pytest

from userspace_proxy.dataplane.silent_flows import WAIT_S, SilentFlows
from userspace_proxy.model import SocketAddress

from .rig import Clock

ABSENT, PRESENT = SocketAddress("192.0.2.1", 53), SocketAddress("192.0.2.2", 53)


class Flow(SimpleNamespace):
    """What is needed of a flow; each one is a key of its own."""

    __hash__ = object.__hash__
    __eq__ = object.__eq__

    def __init__(self, endpoint):
        super().__init__(endpoint=endpoint, has_answer=False)


class Node:
    """Flows at client addresses, and a neighbour table."""

    def __init__(self):
        self.clock = Clock()
        self.questions = 0
        self.flows = SilentFlows(self.clock, self._absent_hop)

    def add(self, endpoint):
        flow = Flow(endpoint)
        self.flows.add(flow, self.clock.now)
        return flow

    def take_absent(self, after_s=WAIT_S):
        self.clock.now += after_s
        return self.flows.take_absent()

    def _absent_hop(self, ip):
        self.questions += 1
        return "eth0" if ip == ABSENT.ip else ""


@pytest.fixture
def node():
    return Node()


def test_an_unanswered_flow_whose_endpoint_no_host_has_is_found_once(node):
    flow = node.add(ABSENT)
    node.add(PRESENT)
    assert node.take_absent(WAIT_S - 0.1) == []
    assert node.questions == 0, "ARP has had no time to fail"
    assert node.take_absent(0.1) == [flow]
    assert node.take_absent() == []
    assert (node.questions, len(node.flows)) == (2, 0)


def test_the_kernel_is_not_asked_about_a_flow_that_was_answered_or_has_ended(node):
    node.add(ABSENT).has_answer = True
    node.flows.discard(node.add(ABSENT))
    assert node.take_absent() == []
    assert (node.questions, len(node.flows)) == (0, 0)


def test_many_endpoints_are_asked_for_in_turns_and_each_once(node):
    for number in range(150):
        for _ in range(2):
            node.add(SocketAddress(f"198.51.100.{number}", 53))
    later = node.add(ABSENT)
    assert node.take_absent() == []
    assert (node.questions, len(node.flows)) == (100, 101)
    assert node.take_absent(0.0) == [later]
    assert (node.questions, len(node.flows)) == (151, 0)
