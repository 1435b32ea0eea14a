"""Processes that hand over and take over a node, without workers."""

import asyncio
import contextlib
import os
import socket
import sys

import pytest

from tests.node.processes import run_without_capabilities
from userspace_proxy.agent import hand_over
from userspace_proxy.agent.hand_over import (
    Relief,
    adopt,
    answer_requests,
    ask_to_hand_over,
    end_workers,
    worker_label,
)
from userspace_proxy.agent.lock import NodeLock
from userspace_proxy.agent.rounds.changes import Progress, SyncCounters
from userspace_proxy.agent.rounds.options import Options
from userspace_proxy.cluster import Snapshot
from userspace_proxy.errors import LockHeld
from userspace_proxy.frames import HEADER
from userspace_proxy.kernel import abstract_sockets, net_admin_proof
from userspace_proxy.plane.authentication import frame
from userspace_proxy.plane.channel import MAX_FRAME_BYTES
from userspace_proxy.plane.messages import (
    AffinityEntriesSent,
    Drain,
    HandOver,
    HandOverRefused,
    Prove,
)
from userspace_proxy.plane.worker_sockets import open_worker_socket

from ..dataplane.waiting import turns, until
from ..plane.compromised import Compromised
from .holders import running, take_over


@pytest.fixture
def holder():
    with running(sys.executable) as process:
        yield process


STRANGER = r"""
import asyncio
from userspace_proxy.agent.hand_over import ask_to_hand_over
from userspace_proxy.agent.lock import connect_to_holder
from userspace_proxy.errors import LockHeld
from userspace_proxy.frames import receive_frame
from userspace_proxy.plane.messages import HandOver, Proved
from userspace_proxy.plane.authentication import frame
try:
    asyncio.run(ask_to_hand_over(None))
except LockHeld as exc:
    print(exc)
sock, _ = connect_to_holder(None)
sock.settimeout(60)
receive_frame(sock)
sock.send(frame(HandOver()) + frame(Proved(b"0123456789abcdef")))
print(receive_frame(sock)[0].decode())
"""


def test_root_without_net_admin_cannot_take_over_the_node(holder):
    """A container on the host's network may run as root without NET_ADMIN."""
    said = run_without_capabilities(STRANGER)
    assert said == (
        f"cannot prove CAP_NET_ADMIN to userspace-proxy (pid {holder.pid}): Operation not permitted"
        " (run as root and grant NET_ADMIN)\n"
        '["HandOverRefused","the requesting process has not proved NET_ADMIN"]\n'
    )
    # The holder keeps running.
    holder.terminate()
    assert holder.wait(20) == 3


def test_a_process_unable_to_prove_net_admin_cannot_take_over(holder):
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(60)
        sock.connect("\0userspace-proxy")
        sock.send(frame(HandOver()))
        refusal = HandOverRefused("the requesting process has not proved NET_ADMIN")
        assert sock.recv(999) == frame(refusal)
        assert sock.recv(1) == b""
    taken = take_over()
    assert taken.pid == holder.pid
    taken.report_serving()


def test_take_over_without_a_running_proxy_returns_none():
    assert take_over() is None


@pytest.fixture
async def lock():
    lock = NodeLock("a")
    lock.take()
    yield lock
    lock.release()


async def test_a_process_that_cannot_hand_over_keeps_the_lock(lock):
    requests = answer_requests(asyncio.get_running_loop(), lock, None)
    with pytest.raises(LockHeld, match="hand-over is disabled for this proxy"):
        await ask_to_hand_over("a")
    requests.close()
    with pytest.raises(LockHeld):
        NodeLock("a").take()


ASKER = r"""
import asyncio
from userspace_proxy.agent.hand_over import ask_to_hand_over
from userspace_proxy.errors import LockHeld
try:
    asyncio.run(ask_to_hand_over("a"))
except LockHeld as exc:
    print(exc.message)
"""


async def test_a_process_without_net_admin_sends_nothing_to_the_lock_holder(lock):
    """The listener may not be a proxy: any process of the same user can listen on this name."""
    said = await asyncio.to_thread(run_without_capabilities, ASKER)
    assert said.startswith(f"cannot prove CAP_NET_ADMIN to userspace-proxy (pid {os.getpid()}): ")
    (sock,) = accept(lock)
    with sock:
        assert sock.recv(99) == b""


async def test_an_unresponsive_lock_holder_is_named_by_its_pid(lock, monkeypatch):
    monkeypatch.setattr(hand_over, "_ANSWER_S", 0.05)
    with pytest.raises(LockHeld, match=f"pid {os.getpid()}"):
        await ask_to_hand_over("a")


def accept(lock):
    return abstract_sockets.accept(lock.listener, 64)


@pytest.fixture
async def ask(lock):
    """Yield a function that asks for the node, and returns its task and the holder's socket."""

    async def make():
        asking = asyncio.create_task(ask_to_hand_over("a"))
        accepted = []
        await until(lambda: accepted.extend(accept(lock)) or accepted, "a connection")
        opened.append(accepted[0])
        return asking, accepted[0]

    opened = []
    yield make
    for sock in opened:
        sock.close()


def challenge_by(sock, challenge):
    socket.send_fds(sock, [frame(Prove(), 1)], [challenge.fileno()])


async def test_a_socket_other_than_a_netlink_challenge_is_rejected(ask):
    asking, sock = await ask()
    challenge_by(sock, sock)
    with pytest.raises(LockHeld, match=r"not a netlink socket for netfilter \(see its log"):
        await asking


async def test_waiting_for_an_answer_times_out_even_while_bytes_arrive(ask, monkeypatch):
    monkeypatch.setattr(hand_over, "_ANSWER_S", 0.2)
    asking, sock = await ask()
    sock.send(HEADER.pack(MAX_FRAME_BYTES, 0))

    def is_done():
        with contextlib.suppress(ConnectionError):
            sock.send(b"x")
        return asking.done()

    await until(is_done)
    with pytest.raises(LockHeld, match="does not answer"):
        await asking


async def test_a_malformed_answer_is_rejected(ask):
    asking, sock = await ask()
    sock.send(b"what?")
    with pytest.raises(LockHeld, match=r"\): sent a malformed message: a frame of \d+ bytes \("):
        await asking


async def test_a_netlink_port_in_use_is_not_reported_as_missing_net_admin(ask, monkeypatch):
    monkeypatch.setattr(net_admin_proof.secrets, "token_bytes", bytes)
    with net_admin_proof.open_challenge() as taken, net_admin_proof.open_challenge() as challenge:
        taken.bind((1, 0))
        asking, sock = await ask()
        challenge_by(sock, challenge)
        with pytest.raises(LockHeld, match=r"Address already in use \(try again"):
            await asking


async def test_a_successor_reconnects_after_losing_its_connection(ask, lock):
    asking, sock = await ask()
    with net_admin_proof.open_challenge() as challenge:
        challenge_by(sock, challenge)
    sock.close()
    accepted = []
    await until(lambda: accepted.extend(accept(lock)) or accepted, "another connection")
    with accepted[0]:
        accepted[0].send(hand_over.OVER)
        taken = await asking
        taken.report_serving()
    assert taken.pid == os.getpid()


async def test_a_successor_aborts_the_takeover_after_repeated_disconnects(lock, monkeypatch):
    monkeypatch.setattr(hand_over, "_ANSWER_S", 0.1)
    asking = asyncio.create_task(ask_to_hand_over("a"))

    def is_done():
        for sock in accept(lock):
            with (
                contextlib.suppress(BrokenPipeError),
                sock,
                net_admin_proof.open_challenge() as challenge,
            ):
                challenge_by(sock, challenge)
        return asking.done()

    await until(is_done)
    with pytest.raises(LockHeld, match="does not answer"):
        await asking


async def test_a_holder_that_cannot_open_a_challenge_answers_with_the_cause(lock, monkeypatch):
    def fail():
        raise OSError("no nfnetlink")

    monkeypatch.setattr(net_admin_proof, "open_challenge", fail)
    requests = answer_requests(asyncio.get_running_loop(), lock, lambda _sock: None)
    with contextlib.closing(requests), pytest.raises(LockHeld, match="NET_ADMIN: no nfnetlink"):
        await ask_to_hand_over("a")


def test_workers_are_labelled_if_the_process_supports_handover():
    assert worker_label(Options()) is None
    assert worker_label(Options(hand_over=lambda: None)) == ""
    assert worker_label(Options(hand_over=lambda: None, proxy_name="a")) == "a"


async def test_adopt_and_end_do_nothing_without_workers():
    async with contextlib.AsyncExitStack() as stack:
        assert await adopt("none", stack) is None
    await end_workers("none")


async def test_workers_that_do_not_exit_in_time_are_reported(monkeypatch, caplog):
    monkeypatch.setattr(hand_over, "END_S", 0.05)
    with open_worker_socket("a"):
        # This process never reads.
        await end_workers("a")
    assert "workers did not exit in time" in caplog.text


async def test_previous_workers_drain_after_sending_their_affinity_entries(plane):
    with contextlib.ExitStack() as stack:
        worker = Compromised(lambda each: stack.enter_context(contextlib.closing(each)))
        worker.hand_over(is_last=True)
        await worker.previous_workers.adopt()
        progress = Progress(SyncCounters())
        progress.in_force = Snapshot({})
        relief = Relief(worker.previous_workers, progress, plane, Options())
        relieving = asyncio.create_task(relief.run())
        await turns(20)
        assert not relieving.done()
        worker.channel.send(AffinityEntriesSent())
        await relieving
        await until(lambda: isinstance(worker.got[-1], Drain))
