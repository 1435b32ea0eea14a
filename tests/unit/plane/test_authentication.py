"""Processes that request an orphan's sockets, including hostile and silent processes."""

import asyncio
import contextlib
import errno
import os
import socket
import struct

import msgspec
import pytest

from userspace_proxy.dataplane import Tuning
from userspace_proxy.frames import make_frame
from userspace_proxy.kernel import abstract_sockets
from userspace_proxy.plane import authentication
from userspace_proxy.plane.authentication import Reception, frame
from userspace_proxy.plane.channel import Channel
from userspace_proxy.plane.messages import (
    Drain,
    End,
    FromWorker,
    HandedOver,
    HandOver,
    HandOverRefused,
    Prove,
    Proved,
    Running,
    Start,
)
from userspace_proxy.plane.worker_sockets import connect_to_workers, open_worker_socket

from ..dataplane.peers import TcpEndpoint
from ..dataplane.waiting import turns, until

LABEL = "reception"
NAME = "\0userspace-proxy-reception"


class Candidate:
    """A process that connects to an orphan."""

    def __init__(self, control, sock=None):
        if sock is None:
            (sock,) = connect_to_workers(LABEL)
        self._control = control
        self.sock = sock
        self.got = []
        self.is_lost = False
        self.challenges = []
        self.channel = control.keep(
            Channel(
                asyncio.get_running_loop(),
                self.sock,
                reads=FromWorker,
                receive=self._receive,
                lost=self._on_lost,
            )
        )

    def _receive(self, message, descriptors):
        self.got.append(type(message))
        for descriptor in descriptors:
            self.challenges.append(self._control.keep(socket.socket(fileno=descriptor)))

    def _on_lost(self, _malformed):
        self.is_lost = True

    async def hear(self, kind):
        await until(lambda: kind in self.got or self.is_lost, kind.__name__)
        assert kind in self.got


async def connected():
    """Return a connection as soon as the kernel's short queue has room for it."""
    found = []
    await until(lambda: found.extend(connect_to_workers(LABEL)) or found, "a connection")
    return found[0]


@pytest.fixture
async def orphan(idle):
    """A worker that serves without a control process."""
    with open_worker_socket(LABEL) as worker_socket:
        idle.send(Start(3, Tuning(), {}), worker_socket)
        await idle.hear(Running)
        pod = idle.keep(TcpEndpoint())
        idle.at = idle.serve(pod.address)
        await idle.report()
        idle.channel.close()
        yield idle


async def test_a_candidate_that_proves_the_capability_is_accepted(orphan):
    candidate = Candidate(orphan)
    candidate.channel.send(HandOver())
    await candidate.hear(Prove)
    assert candidate.got == [Prove]
    candidate.channel.send(Proved(candidate.sock.answer(candidate.challenges[0])))
    await candidate.hear(HandedOver)
    candidate.channel.send(End())
    assert await orphan.main.ended == 0


@pytest.mark.parametrize(
    "message", [HandOver(), Proved(b""), Proved(b"0123456789abcdef"), Drain(0.0)], ids=repr
)
async def test_an_unproven_candidate_receives_no_sockets_and_other_candidates_are_served(
    orphan, message, monkeypatch
):
    monkeypatch.setattr(authentication, "_PROVE_S", 0.1)
    stranger = Candidate(orphan)
    stranger.channel.send(HandOver())
    await stranger.hear(Prove)
    stranger.channel.send(message)
    await until(lambda: stranger.is_lost, "the end of the stranger's connection")
    # A proof of another length never becomes complete.
    wrong = message == Proved(b"0123456789abcdef")
    assert stranger.got == [Prove, HandOverRefused][: 1 + wrong]
    await test_a_candidate_that_proves_the_capability_is_accepted(orphan)


@pytest.mark.parametrize("message", [Drain(0.0), End(), Start(0, Tuning(), {}), Proved(b"")])
async def test_commands_of_an_unproven_candidate_are_ignored(orphan, message):
    stranger = Candidate(orphan)
    with socket.create_server(("127.0.0.1", 0)) as given:
        stranger.channel.send(message, given)
        await until(lambda: stranger.is_lost, "the end of the stranger's connection")
    assert not orphan.main.ended.done()
    await test_a_candidate_that_proves_the_capability_is_accepted(orphan)


async def test_a_process_cannot_reuse_another_processs_proof(orphan):
    """If the prover had no name, this process could bind the prover's name later."""
    prover = await connected()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.setblocking(False)
        sock.connect(prover.getpeername())
        prover.close()
        stranger = Candidate(orphan, sock)
        stranger.channel.send(HandOver())
        await until(lambda: stranger.got or stranger.is_lost, "an answer to the stranger")
        assert stranger.got == [HandOverRefused]
        await test_a_candidate_that_proves_the_capability_is_accepted(orphan)


@pytest.mark.parametrize("is_late", [False, True])
async def test_request_proof_and_commands_may_arrive_in_one_read(orphan, is_late):
    """The worker may have been too busy to read them before the deadline."""
    candidate = Candidate(orphan)
    await candidate.hear(Prove)
    proof = candidate.sock.answer(candidate.challenges[0])
    messages = HandOver(), Proved(proof), End()
    candidate.sock.send(b"".join(make_frame(msgspec.json.encode(each)) for each in messages))
    if is_late:
        at = orphan.main._reception
        at._expire(*at._guests)
    await candidate.hear(HandedOver)
    assert await orphan.main.ended == 0


async def test_a_proof_without_a_request_is_ignored(orphan):
    candidate = Candidate(orphan)
    await candidate.hear(Prove)
    proof = frame(Proved(candidate.sock.answer(candidate.challenges[0])))
    candidate.sock.send(bytes(len(frame(HandOver()))) + proof)
    await until(lambda: candidate.is_lost, "the end of the candidate's connection")
    assert candidate.got == [Prove]


async def test_a_malformed_proof_is_rejected(orphan):
    candidate = Candidate(orphan)
    candidate.sock.send(frame(HandOver()) + bytes(authentication._PROOF_BYTES))
    await candidate.hear(HandOverRefused)


async def test_silent_and_broken_candidates_do_not_block_other_candidates(orphan):
    silent = [Candidate(orphan, await connected()) for _ in range(40)]
    await until(lambda: silent[0].is_lost, "the end of the first one's connection")
    silent[-1].sock.send(struct.pack(">IB", 2**31, 0))
    await until(lambda: silent[-1].is_lost, "the end of the broken one's connection")
    await test_a_candidate_that_proves_the_capability_is_accepted(orphan)


async def test_candidates_without_a_proof_do_not_block_other_candidates(orphan):
    for _ in range(40):
        stranger = Candidate(orphan, await connected())
        stranger.channel.send(HandOver())
        await until(lambda one=stranger: Prove in one.got or one.is_lost)
    await test_a_candidate_that_proves_the_capability_is_accepted(orphan)


async def test_an_unproven_candidate_is_dropped_after_a_timeout(orphan, monkeypatch):
    monkeypatch.setattr(authentication, "_PROVE_S", 0.02)
    stranger = Candidate(orphan, await connected())
    await until(lambda: stranger.is_lost, "the end of the stranger's connection")


async def test_a_candidate_that_cannot_be_challenged_is_dropped(orphan, monkeypatch):
    def fail():
        raise OSError(errno.EPROTONOSUPPORT, "no nfnetlink")

    monkeypatch.setattr(authentication.net_admin_proof, "open_challenge", fail)
    stranger = Candidate(orphan, await connected())
    await until(lambda: stranger.is_lost, "the end of the stranger's connection")


async def test_a_process_of_another_user_occupies_no_candidate_slot(orphan, monkeypatch):
    silent = [Candidate(orphan, await connected()) for _ in range(2)]
    for one in silent:
        await one.hear(Prove)
    monkeypatch.setattr(abstract_sockets, "is_trusted", lambda _sock: False)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stranger:
        stranger.setblocking(False)
        stranger.connect(silent[0].sock.getpeername())
        assert await asyncio.get_running_loop().sock_recv(stranger, 1) == b""
    assert not any(one.is_lost for one in silent)


async def test_a_process_of_another_user_is_disconnected_without_a_challenge(orphan, monkeypatch):
    (sock,) = connect_to_workers(LABEL)
    monkeypatch.setattr(abstract_sockets, "is_trusted", lambda _sock: False)
    stranger = Candidate(orphan, sock)
    stranger.channel.send(HandOver())
    await until(lambda: stranger.is_lost, "the end of the stranger's connection")
    assert stranger.got == []


class Desk:
    """A reception, and processes that connect without sending anything."""

    def __init__(self, stack, monkeypatch):
        self._stack = stack
        self.listener = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        self.listener.setblocking(False)
        self.listener.bind(NAME)
        self.listener.listen(64)
        self._ends = []
        self.turns = []
        accept = abstract_sockets.accept

        def count(listener, most):
            socks = accept(listener, most)
            self.turns.append(len(socks))
            return socks

        monkeypatch.setattr(abstract_sockets, "accept", count)
        self.reception = Reception(asyncio.get_running_loop(), self.listener, socket.close)
        stack.callback(self.reception.close)

    def connect(self, count):
        for _ in range(count):
            sock = self._stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            sock.setblocking(False)
            sock.connect(NAME)
            self._ends.append(sock)

    def leave(self, index):
        self._ends[index].close()

    async def accepted(self, count):
        await until(lambda: sum(self.turns) == count, f"{count} accepted")

    @property
    def dismissed(self):
        return [index for index, end in enumerate(self._ends) if is_ended(end)]


def is_ended(sock):
    try:
        return sock.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False


@pytest.fixture
async def desk(monkeypatch):
    monkeypatch.setattr(authentication, "_PROVE_S", 60.0)
    with contextlib.ExitStack() as stack:
        yield Desk(stack, monkeypatch)


@pytest.fixture
def invisible(monkeypatch):
    """Make all peers seem to be in other PID namespaces, where they can't be distinguished."""
    monkeypatch.setattr(abstract_sockets, "peer", lambda _sock: (0, os.geteuid()))
    monkeypatch.setattr(authentication, "SLOTS", 4)


async def test_only_the_two_newest_connections_of_a_process_stay_open(desk):
    desk.connect(5)
    await desk.accepted(5)
    assert desk.dismissed == [0, 1, 2]
    assert len(desk.reception) == 2


async def test_each_process_of_another_pid_namespace_has_its_own_slots(desk, invisible):
    desk.connect(4)
    await desk.accepted(4)
    assert desk.dismissed == []


async def test_while_all_slots_are_taken_other_candidates_wait(desk, invisible, monkeypatch):
    monkeypatch.setattr(authentication, "_ANSWER_S", 3600.0)
    monkeypatch.setattr(authentication, "_PAUSE_S", 0.0)
    desk.connect(6)
    await desk.accepted(4)
    await turns(10)
    assert sum(desk.turns) == 4
    assert desk.dismissed == []
    desk.leave(2)
    await desk.accepted(5)


async def test_waiting_candidates_are_accepted_after_others_time_out(desk, invisible, monkeypatch):
    monkeypatch.setattr(authentication, "_ANSWER_S", 0.02)
    desk.connect(6)
    await desk.accepted(6)
    assert desk.dismissed == [0, 1]


async def test_few_candidates_are_accepted_in_one_iteration_of_the_event_loop(desk):
    desk.connect(40)
    await desk.accepted(40)
    assert max(desk.turns) == authentication._ACCEPTED_A_TURN


@pytest.mark.parametrize("pauses", [False, True])
async def test_a_closed_reception_dismisses_all_candidates_and_accepts_none(
    desk, pauses, monkeypatch
):
    if pauses:
        # A shorter pause might end before the check below, and isn't repeated.
        monkeypatch.setattr(authentication, "_PAUSE_S", 60.0)
    desk.connect(1)
    await desk.accepted(1)
    await until(lambda: (desk.reception._timer is not None) is pauses)
    desk.reception.close()
    desk.reception.close()
    assert desk.dismissed == [0]
    desk.connect(1)
    await turns(10)
    assert sum(desk.turns) == 1
