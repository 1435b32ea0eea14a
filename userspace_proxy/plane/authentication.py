"""Authenticates processes that request a node, or a worker's sockets, over a Unix socket.

    Asker                                       Reception
    connects ─────────────────────────────────▶
             ◀── Prove, a netlink socket ───────
             ─── HandOver, Proved ────────────▶  valid: its connection is passed on
             ◀── HandOverRefused ───────────────  invalid; malformed, or too late: closed

A process that holds a worker's sockets receives the clients of all Services, and can read their
data. Being root isn't enough to receive the sockets: root in a container on the host's network may
have no capabilities, so a process must prove CAP_NET_ADMIN (``kernel.net_admin_proof``). Any
process of root can connect, as often and as fast as it likes, even without that capability.

Rule 1: a process is challenged as soon as it connects, so an idle process can't keep its slot;
without a proof, it receives only the challenge, or the cause of a refusal.
Rule 2: a process has few slots: a further connection closes its oldest connection.
Rule 3: if all slots are taken, the oldest connection is closed once it has had time to answer.
Until then, other processes wait in the kernel's queue.
Rule 4: accepting takes a small share of the CPU time, however many processes connect.
Rule 5: only the bytes of the request and the proof are read: later bytes are for the caller.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from ..errors import UserspaceProxyError
from ..frames import HEADER, make_frame
from ..kernel import abstract_sockets, net_admin_proof
from ..kernel.net_admin_proof import SECRET_BYTES, Prover
from ..struct_types import resolve
from .channel import Channel, In
from .messages import HandOver, HandOverRefused, Prove, Proved, ToWorker

# The number of slots, each of which takes two of the 64 descriptors that a worker reserves for
# other code. Processes in other PID namespaces can't be distinguished, so a slot is held only for a
# short time: a queue of 1,024 connections takes 1.3 s.
SLOTS = 24
_SLOTS_PER_PROCESS = 2
# The minimum time for which a process keeps a slot. A process answers within milliseconds, or tries
# again if the node is too busy.
_ANSWER_S = 0.03
# Seconds after which a process without a proof is disconnected, even if slots are free.
_PROVE_S = 1.0
# The maximum number of connections accepted per turn; each takes 0.1 ms.
_ACCEPTED_A_TURN = 16
_PAUSE_S = 0.005

_NOT_PROVED = "the requesting process has not proved NET_ADMIN"
# The maximum length of a refusal's text.
_REFUSAL_CHARS = 1000


def frame(message: msgspec.Struct, sockets: int = 0) -> bytes:
    """Return the frame of a message, for connections without a channel."""
    return make_frame(msgspec.json.encode(message), sockets)


_CHALLENGE, _REQUEST = frame(Prove(), sockets=1), frame(HandOver())
_PROOF_BYTES = len(frame(Proved(bytes(SECRET_BYTES))))


class Asker(Channel[In, ToWorker]):
    """A channel that requests sockets from a :class:`Reception`, and answers its challenge.

    Args:
        receive: Called with each further message and its sockets, which the callee closes.
        unproved: Called with the cause if the challenge can't be answered; the channel is closed.
        more: Further arguments of :class:`.Channel`.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: Prover,
        *,
        receive: Callable[[In, list[socket.socket]], None],
        unproved: Callable[[OSError], None],
        **more: Any,
    ) -> None:
        self._prover = sock
        self._pass_on = receive
        self._unproved = unproved
        super().__init__(loop, sock, receive=self._take, **more)
        self.send(HandOver())

    def _take(self, message: In, descriptors: list[int]) -> None:
        socks = []
        for descriptor in descriptors:
            try:
                socks.append(socket.socket(fileno=descriptor))
            except OSError:
                os.close(descriptor)
        if isinstance(message, Prove) and socks:
            self._prove(socks[0])
            for sock in socks:
                sock.close()
        else:
            self._pass_on(message, socks)

    def _prove(self, challenge: socket.socket) -> None:
        try:
            self.send(Proved(self._prover.answer(challenge)))
        except OSError as exc:
            self.close()
            self._unproved(exc)


@dataclass(slots=True)
class _Guest:
    """A connection whose process hasn't been authenticated or refused yet."""

    pid: int
    """The process ID; 0 if the process isn't visible from here."""
    since: float
    deadline: asyncio.TimerHandle
    challenge: socket.socket | None
    refusal: str
    """Why the process isn't challenged; empty if it is."""
    said: bytes = b""


class Reception:
    """Authenticates the processes that connect to one listening socket.

    Args:
        listener: The listening socket, which the caller closes after this object.
        proved: Called with the connection of an authenticated process; the callee closes it, or
            raises UserspaceProxyError to refuse the process.
        refused: Called with the cause of each refusal.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        listener: socket.socket,
        proved: Callable[[socket.socket], None],
        refused: Callable[[str], None] = lambda _cause: None,
    ) -> None:
        self._loop = loop
        self._listener = listener
        self._proved = proved
        self._refused = refused
        self._guests: dict[socket.socket, _Guest] = {}
        """The admitted connections, each in a slot, the oldest first."""
        self._timer: asyncio.TimerHandle | None = None
        """The timer that ends a pause between two rounds of accepting."""
        self._resume()

    def __len__(self) -> int:
        return len(self._guests)

    def close(self) -> None:
        """Stop accepting, and close all connections. Idempotent; close the listener after this."""
        if self._timer is None:
            self._loop.remove_reader(self._listener.fileno())
        else:
            self._timer.cancel()
        for sock in tuple(self._guests):
            self._hang_up(sock)

    def _resume(self) -> None:
        self._timer = None
        self._loop.add_reader(self._listener.fileno(), self._on_readable)

    def _on_readable(self) -> None:
        now = self._loop.time()
        settled = sum(now - guest.since >= _ANSWER_S for guest in self._guests.values())
        room = min(max(0, SLOTS - len(self._guests)) + settled, _ACCEPTED_A_TURN)
        for sock in abstract_sockets.accept(self._listener, room) if room else ():
            self._admit(sock, now)
        self._loop.remove_reader(self._listener.fileno())
        self._timer = self._loop.call_later(_PAUSE_S, self._resume)

    def _admit(self, sock: socket.socket, now: float) -> None:
        """Admit a connection and challenge its process; without a free slot, close an older one."""
        pid = abstract_sockets.peer(sock)[0]
        same = [each for each, guest in self._guests.items() if guest.pid == pid and pid]
        if len(same) >= _SLOTS_PER_PROCESS:
            self._hang_up(same[0])
        elif len(self._guests) >= SLOTS:
            self._hang_up(next(iter(self._guests)))
        sock.setblocking(False)
        deadline = self._loop.call_later(_PROVE_S, self._expire, sock)
        self._guests[sock] = _Guest(pid, now, deadline, *self._challenge(sock))
        self._loop.add_reader(sock.fileno(), self._read, sock)

    def _challenge(self, sock: socket.socket) -> tuple[socket.socket | None, str]:
        """Challenge a process; return the challenge's socket, or None and the cause of failure."""
        if not net_admin_proof.can_prove(sock):
            return None, _NOT_PROVED
        challenge = None
        try:
            challenge = net_admin_proof.open_challenge()
            socket.send_fds(sock, [_CHALLENGE], [challenge.fileno()])
        except OSError as exc:
            if challenge is not None:
                challenge.close()
            return None, f"cannot check whether the requesting process has NET_ADMIN: {exc}"
        return challenge, ""

    def _read(self, sock: socket.socket) -> None:
        guest = self._guests[sock]
        size = len(_REQUEST) + (_PROOF_BYTES if guest.challenge else 0)
        try:
            text = sock.recv(size - len(guest.said))
        except OSError:
            text = b""
        guest.said += text
        if not text or not _REQUEST.startswith(guest.said[: len(_REQUEST)]):
            self._hang_up(sock)
        elif len(guest.said) == size:
            self._conclude(sock, guest)

    def _conclude(self, sock: socket.socket, guest: _Guest) -> None:
        """Pass on the connection of a process with a valid proof; refuse other processes."""
        is_proved = guest.challenge is not None and net_admin_proof.is_answered(
            guest.challenge, sock, _secret_of(guest.said[len(_REQUEST) :])
        )
        self._leave(sock)
        if not is_proved:
            self._refuse(sock, guest.refusal or _NOT_PROVED)
            return
        try:
            self._proved(sock)
        except UserspaceProxyError as exc:
            self._refuse(sock, str(exc))

    def _refuse(self, sock: socket.socket, cause: str) -> None:
        self._refused(cause)
        with sock, contextlib.suppress(OSError):
            sock.send(frame(HandOverRefused(cause[:_REFUSAL_CHARS])))

    def _expire(self, sock: socket.socket) -> None:
        # The loop may have been too busy to read a proof that arrived in time, so read again.
        self._read(sock)
        if sock in self._guests:
            self._hang_up(sock)

    def _hang_up(self, sock: socket.socket) -> None:
        self._leave(sock)
        sock.close()

    def _leave(self, sock: socket.socket) -> None:
        """Free a connection's slot; the connection stays open."""
        guest = self._guests.pop(sock)
        guest.deadline.cancel()
        if guest.challenge is not None:
            guest.challenge.close()
        self._loop.remove_reader(sock.fileno())


def _secret_of(proof: bytes) -> bytes:
    """Return the secret in the frame of a proof; empty if it is malformed."""
    resolve(Proved)
    try:
        return msgspec.json.decode(proof[HEADER.size :], type=Proved).proof
    except ValueError:
        return b""
