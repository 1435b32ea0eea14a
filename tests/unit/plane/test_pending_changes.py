"""The messages for a worker that has read nothing for a while."""

import asyncio

import pytest

from tests.port_keys import port_key
from userspace_proxy.model import Protocol, SocketAddress
from userspace_proxy.model.serving import Serving
from userspace_proxy.plane import Group, Plane
from userspace_proxy.plane.messages import (
    ChangeGroup,
    CloseListener,
    MoveListener,
    OpenGroup,
    OpenListener,
)

TCP = Protocol.TCP
PODS = [SocketAddress(f"10.0.0.{n}", 80) for n in range(1, 6)]
WEB = SocketAddress("127.0.0.1", 36001)


class RecordingLink:
    """A link to a worker that accepts a message only when the test asks."""

    pid = 1

    def __init__(self):
        self.waiting = []

    def send(self, message, *_socks):
        self.waiting.append(lambda: message)

    def send_later(self, make):
        self.waiting.append(make)

    def take(self):
        waiting, self.waiting = self.waiting, []
        return [make() for make in waiting]


@pytest.fixture
async def slow():
    """A slot whose worker accepts a message only when the test asks."""
    slot = Plane(asyncio.get_running_loop(), 1)._workers[0]
    slot.link = RecordingLink()
    return slot


def open_group(slot, number, *listeners):
    """Open a group with PODS[0] and listeners in a worker, which accepts the messages."""
    group = Group(number, port_key("shop/web:http"))
    group.change(Serving((PODS[0],)))
    slot.update(group.opening())
    for listener in listeners:
        slot.send(OpenListener(listener, number, TCP, WEB))
    slot.link.take()
    return group


def change(slot, group, *pods):
    """Change a group's endpoints, one change per pod; None removes all."""
    for pod in pods:
        slot.update(group.change(Serving(() if pod is None else (pod,))))


def replaced(number, old, new):
    return ChangeGroup(number, [old], [(0, new)])


async def test_waiting_changes_are_merged_except_across_the_close_of_a_listener(slow):
    group = Group(1, port_key("shop/web:http"))
    slow.update(group.opening())
    slow.send(OpenListener(7, 1, TCP, WEB))
    change(slow, group, *PODS[:3])
    slow.send(CloseListener(7))
    change(slow, group, PODS[0], None)
    assert slow.link.take() == [
        OpenGroup(1, port_key("shop/web:http"), Serving((PODS[2],))),
        OpenListener(7, 1, TCP, WEB),
        CloseListener(7),
        ChangeGroup(1, [PODS[2]], []),
    ]
    change(slow, group, PODS[0])
    assert slow.link.take() == [ChangeGroup(1, [], [(0, PODS[0])])]


async def test_listener_messages_of_one_group_do_not_stop_merging_of_other_groups(slow):
    web, other = open_group(slow, 1, 7), open_group(slow, 2, 8)
    change(slow, web, PODS[1])
    change(slow, other, PODS[1])
    slow.send(CloseListener(8))
    slow.send(OpenListener(8, 2, TCP, WEB))
    change(slow, web, PODS[2])
    change(slow, other, PODS[2])
    assert slow.link.take() == [
        replaced(1, PODS[0], PODS[2]),
        replaced(2, PODS[0], PODS[1]),
        CloseListener(8),
        OpenListener(8, 2, TCP, WEB),
        replaced(2, PODS[1], PODS[2]),
    ]


async def test_a_group_loses_its_endpoints_only_after_its_listener_has_moved(slow):
    web, taking = open_group(slow, 1, 7), open_group(slow, 2)
    change(slow, web, PODS[1])
    change(slow, taking, PODS[1])
    slow.send(MoveListener(7, 2))
    change(slow, web, None)
    change(slow, taking, PODS[2])
    assert slow.link.take() == [
        replaced(1, PODS[0], PODS[1]),
        replaced(2, PODS[0], PODS[2]),
        MoveListener(7, 2),
        ChangeGroup(1, [PODS[1]], []),
    ]
    change(slow, taking, PODS[3])
    slow.send(CloseListener(7))
    change(slow, taking, None)
    assert slow.link.take() == [
        replaced(2, PODS[2], PODS[3]),
        CloseListener(7),
        ChangeGroup(2, [PODS[3]], []),
    ]


async def test_at_most_two_changes_of_a_group_are_queued_however_many_listeners_close(slow):
    web = open_group(slow, 1, *range(100))
    for listener in range(100):
        change(slow, web, PODS[1 + listener % 4])
        slow.send(CloseListener(listener))
    changes = [message for message in slow.link.take() if isinstance(message, ChangeGroup)]
    assert changes == [replaced(1, PODS[0], PODS[1]), replaced(1, PODS[1], PODS[4])]
    change(slow, web, PODS[0])
    assert slow.link.take() == [replaced(1, PODS[4], PODS[0])]
