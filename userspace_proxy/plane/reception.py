"""Accepts processes that ask for something at a Unix socket, and have to prove a capability.

    queue ──▶ accept some, pause ──▶ admit: challenged at once ──▶ a place until it has answered

Any process of root may connect, as often and as fast as it can, also one without a capability.

Rule 1: no one that is accepted has to say anything first, so that being idle keeps no place.
Rule 2: a process has few places: of more, its oldest connection goes.
Rule 3: if all places are taken, the oldest connection goes, once it has had time to answer. Others
wait in the kernel's queue meanwhile.
Rule 4: accepting takes a small part of the time, however many connect.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

from ..kernel import abstract_sockets

# Each takes two of the 64 descriptors that a worker leaves to other code. Processes in other PID
# namespaces can't be told apart, so the time is short: a queue of 1,024 connections takes 1.3 s.
PLACES = 24
_PLACES_A_PROCESS = 2
# A process answers within milliseconds, and tries again if the node is too busy for that.
_ANSWER_S = 0.03
# Each takes 0.1 ms.
_ACCEPTED_A_TURN = 16
_PAUSE_S = 0.005

Guest = TypeVar("Guest")


class _Place(NamedTuple):
    """A process that was accepted."""

    pid: int
    """0: it isn't visible from here."""
    since: float


class Reception(Generic[Guest]):
    """The processes that have connected to one listening socket.

    Args:
        listener: The descriptor of the listening socket.
        accept: Returns new connections of trusted processes, at most that many.
        admit: Returns what stands for a connection; None: it was closed.
        dismiss: Called with one that has to go; it closes it, and needn't call :meth:`leave`.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        listener: int,
        accept: Callable[[int], list[socket.socket]],
        *,
        admit: Callable[[socket.socket], Guest | None],
        dismiss: Callable[[Guest], None],
    ) -> None:
        self._loop = loop
        self._listener = listener
        self._accept = accept
        self._admit = admit
        self._dismiss = dismiss
        self._places: dict[Guest, _Place] = {}
        """The oldest first."""
        self._timer: asyncio.TimerHandle | None = None
        """Of the end of a pause."""
        self._is_closed = False
        self._resume()

    def __len__(self) -> int:
        return len(self._places)

    def leave(self, guest: Guest) -> None:
        """Have a place be free. Idempotent."""
        self._places.pop(guest, None)

    def close(self) -> None:
        """Accept no more, and dismiss all that are left. Idempotent; call it before the listener's.

        One that has left isn't dismissed.
        """
        if self._is_closed:
            return
        self._is_closed = True
        if self._timer is None:
            self._loop.remove_reader(self._listener)
        else:
            self._timer.cancel()
        while self._places:
            self._dismiss(self._places.popitem()[0])

    def _resume(self) -> None:
        self._timer = None
        self._loop.add_reader(self._listener, self._on_readable)

    def _on_readable(self) -> None:
        now = self._loop.time()
        settled = sum(now - place.since >= _ANSWER_S for place in self._places.values())
        room = max(0, PLACES - len(self._places)) + settled
        for sock in self._accept(min(room, _ACCEPTED_A_TURN)) if room else ():
            pid = abstract_sockets.peer(sock)[0]
            guest = self._admit(sock)
            if guest is not None:
                self._give_place(guest, _Place(pid, now))
        self._loop.remove_reader(self._listener)
        self._timer = self._loop.call_later(_PAUSE_S, self._resume)

    def _give_place(self, guest: Guest, place: _Place) -> None:
        same = [g for g, other in self._places.items() if other.pid == place.pid and place.pid]
        if len(same) >= _PLACES_A_PROCESS:
            self._send_away(same[0])
        elif len(self._places) >= PLACES:
            self._send_away(next(iter(self._places)))
        self._places[guest] = place

    def _send_away(self, guest: Guest) -> None:
        del self._places[guest]
        self._dismiss(guest)
