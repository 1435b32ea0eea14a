"""Processes that connect again and again, as those of a root without capabilities may."""

import asyncio
import contextlib
import os
import socket

import pytest

from userspace_proxy.kernel import abstract_sockets
from userspace_proxy.plane import reception
from userspace_proxy.plane.reception import Reception

from ..dataplane.waiting import turns, until

NAME = "\0userspace-proxy-reception"


class Desk:
    """A reception, and those that come."""

    def __init__(self, stack):
        self._stack = stack
        self.listener = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        self.listener.setblocking(False)
        self.listener.bind(NAME)
        self.listener.listen(64)
        self.admitted = []
        self.dismissed = []
        self.refuses = False
        self.most = 0
        self.reception = Reception(
            asyncio.get_running_loop(),
            self.listener.fileno(),
            self._accept,
            admit=self._admit,
            dismiss=self.dismissed.append,
        )
        stack.callback(self.reception.close)

    def _accept(self, most):
        socks = abstract_sockets.accept(self.listener, most)
        self.most = max(self.most, len(socks))
        return socks

    def _admit(self, sock):
        self._stack.enter_context(sock)
        if self.refuses:
            return None
        self.admitted.append(len(self.admitted))
        return self.admitted[-1]

    def connect(self, count):
        for _ in range(count):
            sock = self._stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            sock.setblocking(False)
            sock.connect(NAME)


@pytest.fixture
async def desk():
    with contextlib.ExitStack() as stack:
        yield Desk(stack)


@pytest.fixture
def invisible(monkeypatch):
    """Processes of other PID namespaces, which may be one or many."""
    monkeypatch.setattr(abstract_sockets, "peer", lambda _sock: (0, os.geteuid()))
    monkeypatch.setattr(reception, "PLACES", 4)


async def test_of_one_process_only_the_last_connections_have_a_place(desk):
    desk.connect(5)
    await until(lambda: len(desk.admitted) == 5)
    assert desk.dismissed == [0, 1, 2]
    assert len(desk.reception) == 2


async def test_processes_that_are_invisible_have_a_place_each(desk, invisible):
    desk.connect(4)
    await until(lambda: len(desk.admitted) == 4)
    assert desk.dismissed == []


async def test_while_all_places_are_taken_others_wait(desk, invisible, monkeypatch):
    monkeypatch.setattr(reception, "_ANSWER_S", 3600.0)
    monkeypatch.setattr(reception, "_PAUSE_S", 0.0)
    desk.connect(6)
    await until(lambda: len(desk.admitted) == 4)
    await turns(10)
    assert len(desk.admitted) == 4
    desk.reception.leave(2)
    desk.reception.leave(2)
    await until(lambda: len(desk.admitted) == 5)
    assert desk.dismissed == []


async def test_one_that_had_time_to_answer_makes_way_for_those_that_wait(
    desk, invisible, monkeypatch
):
    monkeypatch.setattr(reception, "_ANSWER_S", 0.02)
    desk.connect(6)
    await until(lambda: len(desk.admitted) == 6)
    assert desk.dismissed == [0, 1]


async def test_one_that_is_not_admitted_takes_no_place(desk):
    desk.refuses = True
    desk.connect(3)
    await until(lambda: desk.most)
    assert len(desk.reception) == 0


async def test_few_are_accepted_at_a_time(desk):
    desk.connect(40)
    await until(lambda: len(desk.admitted) == 40)
    assert desk.most == reception._ACCEPTED_A_TURN


@pytest.mark.parametrize("pauses", [False, True])
async def test_a_closed_reception_dismisses_all_and_accepts_no_more(desk, pauses, monkeypatch):
    if pauses:
        # One that is over before the test looks doesn't come again.
        monkeypatch.setattr(reception, "_PAUSE_S", 60.0)
    desk.connect(1)
    await until(lambda: len(desk.admitted) == 1)
    await until(lambda: (desk.reception._timer is not None) is pauses)
    desk.reception.close()
    desk.reception.close()
    assert desk.dismissed == [0]
    desk.connect(1)
    await turns(10)
    (waiting,) = abstract_sockets.accept(desk.listener, 2)
    waiting.close()
