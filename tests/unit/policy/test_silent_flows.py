from types import SimpleNamespace

import pytest

from userspace_proxy.model import SocketAddress
from userspace_proxy.policy.silent_flows import AGAIN_S, WAIT_S, SilentFlows

ABSENT, PRESENT = SocketAddress("192.0.2.1", 53), SocketAddress("192.0.2.2", 53)


class Flow(SimpleNamespace):
    """The attributes of a flow that the test needs; flows are compared by identity."""

    __hash__ = object.__hash__
    __eq__ = object.__eq__

    def __init__(self, endpoint):
        super().__init__(endpoint=endpoint, has_answer=False)


class Node:
    """Flows with client addresses, and a neighbour table."""

    def __init__(self):
        self.now = 1000.0
        self.questions = 0
        self.absent = {ABSENT.ip}
        self.flows = SilentFlows()

    def add(self, endpoint):
        flow = Flow(endpoint)
        self.flows.add(flow, self.now)
        return flow

    def take_absent(self, after_s=WAIT_S):
        self.now += after_s
        return self.flows.take_absent(self.now, self._absent_hop)

    @property
    def watched(self):
        return len(self.flows._began) + len(self.flows._asked)

    def _absent_hop(self, ip):
        self.questions += 1
        return "eth0" if ip in self.absent else ""


@pytest.fixture
def node():
    return Node()


def test_an_unanswered_flow_to_an_absent_host_is_reported_once(node):
    flow = node.add(ABSENT)
    assert node.take_absent(WAIT_S - 0.1) == []
    assert node.questions == 0, "ARP has had no time to fail"
    assert node.take_absent(0.1) == [flow]
    assert node.take_absent() == []
    assert (node.questions, node.watched) == (1, 0)


def test_a_departed_host_is_detected_unless_its_endpoint_has_answered(node):
    flow, answered, ended = [node.add(PRESENT) for _ in range(3)]
    assert node.take_absent() == []
    node.flows.discard(ended)
    node.absent.add(PRESENT.ip)
    answered.has_answer = True
    assert node.take_absent(AGAIN_S - 0.1) == []
    assert node.take_absent(0.1) == [flow]
    assert (node.questions, node.watched) == (2, 0)


def test_flows_whose_endpoints_were_already_checked_are_checked_after_new_flows(node):
    for number in range(150):
        node.add(SocketAddress(f"198.51.100.{number}", 53))
    assert (node.take_absent(), node.take_absent(0.0), node.questions) == ([], [], 150)
    node.now += AGAIN_S - WAIT_S
    later = node.add(ABSENT)
    assert (node.take_absent(), node.questions) == ([later], 250)
    assert (node.take_absent(0.0), node.questions) == ([], 301)


def test_the_kernel_is_not_queried_about_an_answered_or_ended_flow(node):
    node.add(ABSENT).has_answer = True
    node.flows.discard(node.add(ABSENT))
    assert node.take_absent() == []
    assert (node.questions, node.watched) == (0, 0)


def test_neighbour_queries_for_many_endpoints_are_spread_over_turns(node):
    for number in range(150):
        for _ in range(2):
            node.add(SocketAddress(f"198.51.100.{number}", 53))
    later = node.add(ABSENT)
    assert node.take_absent() == []
    assert (node.questions, node.watched) == (100, 301)
    assert node.take_absent(0.0) == [later]
    assert (node.questions, node.watched) == (151, 300)
