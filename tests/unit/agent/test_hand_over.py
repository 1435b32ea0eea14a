"""Processes that hand over and take over a node, as far as that needs no workers of their own."""

import asyncio
import contextlib
import os
import socket
import sys

import pytest

from tests.node.processes import run_without_capabilities
from userspace_proxy.agent import hand_over
from userspace_proxy.agent.hand_over import (
    HandOverRequests,
    adopt,
    ask_to_hand_over,
    end_workers,
    worker_label,
)
from userspace_proxy.agent.lock import NodeLock, connect_to_holder
from userspace_proxy.agent.options import Options
from userspace_proxy.errors import LockHeld
from userspace_proxy.plane.rendezvous import open_rendezvous

from ..dataplane.waiting import until
from .holders import running


@pytest.fixture
def holder():
    with running(sys.executable) as process:
        yield process


STRANGER = r"""
import socket
from userspace_proxy.agent.hand_over import ask_to_hand_over
from userspace_proxy.agent.lock import connect_to_holder
from userspace_proxy.errors import LockHeld
try:
    ask_to_hand_over(None)
except LockHeld as exc:
    print(exc)
sock, _ = connect_to_holder(None)
sock.settimeout(60)
sock.send(b"hand over\n")
socket.recv_fds(sock, 99, 1)
sock.send(b"proved\n")
print(sock.recv(99).decode())
"""


def test_root_without_net_admin_is_refused_the_node(holder):
    """As in a container of the host's network."""
    said = run_without_capabilities(STRANGER)
    assert said == (
        f"cannot prove NET_ADMIN to userspace-proxy (pid {holder.pid}): Operation not permitted"
        " (run as root and grant NET_ADMIN)\n"
        "hands over only to a process that has NET_ADMIN\n"
    )
    # It continues.
    holder.terminate()
    assert holder.wait(20) == 3


def test_a_version_that_proves_nothing_is_refused_with_the_remedy(holder):
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(60)
        sock.connect("\0userspace-proxy")
        sock.send(b"hand over\n")
        assert b"stop the running one, then start that version" in sock.recv(999)
        assert sock.recv(1) == b""
    taken = ask_to_hand_over(None)
    assert taken.pid == holder.pid
    taken.report_serving()


def test_a_stranger_with_another_spelling_of_a_number_is_refused(holder):
    """Else it could pass its challenge on to the process whose number that is."""
    prover, _ = connect_to_holder(None)
    with prover, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stranger:
        stranger.settimeout(60)
        stranger.bind(prover.getsockname().replace(b"#", b"#0"))
        stranger.connect("\0userspace-proxy")
        stranger.send(b"hand over\n")
        assert stranger.recv(999).startswith(b"hands over only to a process that proves NET_ADMIN")
    holder.terminate()
    assert holder.wait(20) == 3


def test_without_a_holder_there_is_no_one_to_ask():
    assert ask_to_hand_over(None) is None


@pytest.fixture
async def lock():
    lock = NodeLock("a")
    lock.take()
    yield lock
    lock.release()


async def test_a_process_that_cannot_hand_over_keeps_the_lock(lock):
    requests = HandOverRequests(asyncio.get_running_loop(), lock, None)
    taken = await asyncio.to_thread(ask_to_hand_over, "a")
    assert taken.pid == os.getpid()
    assert not taken.is_awaited()
    requests.close()
    with pytest.raises(LockHeld):
        NodeLock("a").take()


async def test_one_that_does_not_answer_is_named(lock, monkeypatch):
    monkeypatch.setattr(hand_over, "_ANSWER_S", 0.05)
    with pytest.raises(LockHeld, match=f"pid {os.getpid()}"):
        await asyncio.to_thread(ask_to_hand_over, "a")


async def test_processes_that_say_nothing_are_few(lock):
    asked = []
    requests = HandOverRequests(asyncio.get_running_loop(), lock, asked.append)
    with contextlib.ExitStack() as stack:
        socks = []
        for _ in range(20):
            sock = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            sock.setblocking(False)
            sock.connect("\0userspace-proxy/a")
            socks.append(sock)
        assert await asyncio.get_running_loop().sock_recv(socks[0], 1) == b""
        assert len(requests._asking) == hand_over._MAX_ASKING
        socks[-1].send(b"what?")
        await until(lambda: len(requests._asking) < hand_over._MAX_ASKING)
        requests.close()
    assert asked == []


def test_workers_are_labelled_if_the_process_can_hand_over():
    assert worker_label(Options()) is None
    assert worker_label(Options(hand_over=lambda: None)) == ""
    assert worker_label(Options(hand_over=lambda: None, proxy_name="a")) == "a"


async def test_without_workers_nothing_is_adopted_or_ended():
    async with contextlib.AsyncExitStack() as stack:
        assert await adopt("none", stack) is None
    await end_workers("none")


async def test_workers_of_a_killed_process_are_ended(monkeypatch, caplog):
    monkeypatch.setattr(hand_over, "END_S", 0.05)
    with open_rendezvous("a"):
        # A process that never reads.
        await end_workers("a")
    assert "a worker does not end" in caplog.text
