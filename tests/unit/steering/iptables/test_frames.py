from __future__ import annotations

import socket

import pytest

from userspace_proxy.steering.iptables import frames


@pytest.fixture
def ends():
    one, other = socket.socketpair()
    with one, other:
        yield one, other


def test_messages_arrive_one_by_one(ends):
    agent, helper = ends
    frames.send(agent, {"do": "render"})
    frames.send(agent, [1, None, "ü"])
    assert frames.receive(helper) == {"do": "render"}
    assert frames.receive(helper) == [1, None, "ü"]


@pytest.mark.parametrize("sent", [b"", b"\0\0", b"\0\0\0\5[1"], ids=["none", "length", "half"])
def test_a_message_that_ends_early_is_the_other_sides_end(ends, sent):
    agent, helper = ends
    agent.sendall(sent)
    agent.close()
    with pytest.raises(EOFError):
        frames.receive(helper)
