import asyncio
import errno
import socket
import struct

import pytest

from userspace_proxy.dataplane import Tuning
from userspace_proxy.kernel import abstract_sockets
from userspace_proxy.plane import candidates
from userspace_proxy.plane.channel import Channel
from userspace_proxy.plane.messages import (
    Drain,
    End,
    FromWorker,
    HandedOver,
    HandOver,
    Prove,
    Proved,
    Running,
    Start,
)
from userspace_proxy.plane.rendezvous import connect_to_workers, open_rendezvous

from ..dataplane.peers import TcpEndpoint
from ..dataplane.waiting import until

LABEL = "candidates"


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
    """Return a connection, once the kernel's short queue has room for it."""
    found = []
    await until(lambda: found.extend(connect_to_workers(LABEL)) or found, "a connection")
    return found[0]


@pytest.fixture
async def orphan(idle):
    """A worker that serves, without a control process."""
    with open_rendezvous(LABEL) as rendezvous:
        idle.send(Start(3, Tuning(), {}), rendezvous)
        await idle.hear(Running)
        pod = idle.keep(TcpEndpoint())
        idle.at = idle.serve(pod.address)
        await idle.report()
        idle.channel.close()
        yield idle


async def test_a_candidate_that_proves_the_capability_is_chosen(orphan):
    candidate = Candidate(orphan)
    candidate.channel.send(HandOver())
    await candidate.hear(Prove)
    assert candidate.got == [Prove]
    candidate.channel.send(Proved(candidate.sock.answer(candidate.challenges[0])))
    await candidate.hear(HandedOver)
    candidate.channel.send(End())
    assert await orphan.main.ended == 0


@pytest.mark.parametrize("message", [HandOver(), Proved(b""), Proved(b"0123456789abcdef")])
async def test_a_candidate_without_an_answer_gets_nothing_and_others_are_heard(orphan, message):
    stranger = Candidate(orphan)
    stranger.channel.send(HandOver())
    await stranger.hear(Prove)
    stranger.channel.send(message)
    await until(lambda: stranger.is_lost, "the end of the stranger's connection")
    assert stranger.got == [Prove]
    await test_a_candidate_that_proves_the_capability_is_chosen(orphan)


@pytest.mark.parametrize("message", [Drain(0.0), End(), Start(0, Tuning(), {}), Proved(b"")])
async def test_a_candidate_that_has_proved_nothing_commands_nothing(orphan, message):
    stranger = Candidate(orphan)
    with socket.create_server(("127.0.0.1", 0)) as given:
        stranger.channel.send(message, given)
        await until(lambda: stranger.is_lost, "the end of the stranger's connection")
    assert not orphan.main.ended.done()
    await test_a_candidate_that_proves_the_capability_is_chosen(orphan)


async def test_a_process_cannot_have_another_one_answer_for_it(orphan):
    """Without a name, it could bind that one's name later."""
    prover = await connected()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.setblocking(False)
        sock.connect(prover.getpeername())
        prover.close()
        stranger = Candidate(orphan, sock)
        stranger.channel.send(HandOver())
        await until(lambda: stranger.got or stranger.is_lost, "an answer to the stranger")
        assert stranger.got == []
        await test_a_candidate_that_proves_the_capability_is_chosen(orphan)


async def test_a_candidate_is_challenged_before_it_asks(orphan):
    """So that one that never asks is no different from one that doesn't answer."""
    candidate = Candidate(orphan)
    await candidate.hear(Prove)
    candidate.channel.send(Proved(candidate.sock.answer(candidate.challenges[0])))
    await candidate.hear(HandedOver)


async def test_silent_and_broken_candidates_keep_no_other_one_from_being_chosen(orphan):
    silent = [Candidate(orphan, await connected()) for _ in range(40)]
    await until(lambda: silent[0].is_lost, "the end of the first one's connection")
    silent[-1].sock.send(struct.pack(">IB", 2**31, 0))
    await until(lambda: silent[-1].is_lost, "the end of the broken one's connection")
    await test_a_candidate_that_proves_the_capability_is_chosen(orphan)


async def test_candidates_that_ask_and_prove_nothing_keep_no_other_one_from_being_chosen(orphan):
    for _ in range(40):
        stranger = Candidate(orphan, await connected())
        stranger.channel.send(HandOver())
        await until(lambda one=stranger: Prove in one.got or one.is_lost)
    await test_a_candidate_that_proves_the_capability_is_chosen(orphan)


async def test_a_candidate_that_proves_nothing_is_dropped_after_a_time(orphan, monkeypatch):
    monkeypatch.setattr(candidates, "_PROVE_S", 0.02)
    stranger = Candidate(orphan, await connected())
    await until(lambda: stranger.is_lost, "the end of the stranger's connection")


async def test_a_candidate_that_cannot_be_challenged_is_dropped(orphan, monkeypatch):
    def fail():
        raise OSError(errno.EPROTONOSUPPORT, "no nfnetlink")

    monkeypatch.setattr(candidates.net_admin_proof, "open_challenge", fail)
    stranger = Candidate(orphan, await connected())
    await until(lambda: stranger.is_lost, "the end of the stranger's connection")


async def test_a_process_of_another_user_takes_no_place(orphan, monkeypatch):
    silent = [Candidate(orphan, await connected()) for _ in range(2)]
    for one in silent:
        await one.hear(Prove)
    monkeypatch.setattr(abstract_sockets, "is_trusted", lambda _sock: False)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stranger:
        stranger.setblocking(False)
        stranger.connect(silent[0].sock.getpeername())
        assert await asyncio.get_running_loop().sock_recv(stranger, 1) == b""
    assert not any(one.is_lost for one in silent)


async def test_a_process_of_another_user_is_no_candidate(orphan, monkeypatch):
    (sock,) = connect_to_workers(LABEL)
    monkeypatch.setattr(abstract_sockets, "is_trusted", lambda _sock: False)
    stranger = Candidate(orphan, sock)
    stranger.channel.send(HandOver())
    await until(lambda: stranger.is_lost, "the end of the stranger's connection")
    assert stranger.got == []
