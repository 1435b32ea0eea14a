"""Processes that connect to an orphaned worker, until one has proved that it may command it.

    candidate ──HandOver──▶ worker ──Prove, a socket──▶ candidate
              ──HandOver──▶ worker: the socket shows CAP_NET_ADMIN, this one is chosen

With a worker's sockets a process gets the clients of all Services, and reads what they send. Root
in a container of the host's network may have no capability, and must not get them, so the user
isn't enough.

Rule 1: a candidate is sent nothing but Prove, and any other message ends its connection.
Rule 2: a candidate that sends nothing keeps no other one from being chosen.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable

from ..kernel import abstract_sockets, net_admin_proof
from .channel import Channel
from .messages import FromWorker, HandOver, Prove, ToWorker

Receive = Callable[[ToWorker, list[int]], None]
Lost = Callable[[str], None]
_Channel = Channel[ToWorker, FromWorker]

# The next control process answers within milliseconds; of more, the first one has to go.
_MAX_CANDIDATES = 16


class Candidates:
    """The processes that have connected to one worker's rendezvous.

    Args:
        rendezvous: The listening socket, which the caller closes, after this object.
        open_channel: Returns the channel over a connection.
        chosen: Called once, with the channel of the next control process, before it is called by
            that channel: close this object then.
        receive: Called with the messages of the chosen process.
        lost: Called when it is lost.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        rendezvous: socket.socket,
        open_channel: Callable[[socket.socket, Receive, Lost], _Channel],
        *,
        chosen: Callable[[_Channel], None],
        receive: Receive,
        lost: Lost,
    ) -> None:
        self.open_channel = open_channel
        self.receive = receive
        self.lost = lost
        self._loop = loop
        self._rendezvous = rendezvous
        self._chosen = chosen
        self._candidates: list[_Candidate] = []
        loop.add_reader(rendezvous.fileno(), self._accept)

    def close(self) -> None:
        """Wait no more, and hang up on all that weren't chosen. Idempotent."""
        self._loop.remove_reader(self._rendezvous.fileno())
        while self._candidates:
            self.drop(self._candidates[0])

    def choose(self, candidate: _Candidate) -> None:
        """Have a candidate be the next control process."""
        self._candidates.remove(candidate)
        self._chosen(candidate.channel)

    def drop(self, candidate: _Candidate) -> None:
        """Hang up on a candidate."""
        self._candidates.remove(candidate)
        candidate.close()

    def _accept(self) -> None:
        try:
            sock = self._rendezvous.accept()[0]
        except OSError:
            return
        if not abstract_sockets.is_trusted(sock):
            sock.close()
            return
        self._candidates.append(_Candidate(self, sock))
        if len(self._candidates) > _MAX_CANDIDATES:
            self.drop(self._candidates[0])


class _Candidate:
    """One process that has connected."""

    def __init__(self, owner: Candidates, sock: socket.socket) -> None:
        self._owner = owner
        self._sock = sock
        self._challenge: socket.socket | None = None
        self._is_chosen = False
        self.channel = owner.open_channel(sock, self._receive, self._lost)

    def close(self) -> None:
        self.channel.close()
        self._close_challenge()

    def _close_challenge(self) -> None:
        if self._challenge is not None:
            self._challenge.close()
            self._challenge = None

    def _receive(self, message: ToWorker, descriptors: list[int]) -> None:
        if self._is_chosen:
            self._owner.receive(message, descriptors)
            return
        for descriptor in descriptors:
            os.close(descriptor)
        if not isinstance(message, HandOver):
            self._owner.drop(self)
        elif self._challenge is None:
            self._have_it_prove()
        elif net_admin_proof.is_answered(self._challenge, self._sock):
            self._is_chosen = True
            self._close_challenge()
            self._owner.choose(self)
            self._owner.receive(message, [])
        else:
            self._owner.drop(self)

    def _have_it_prove(self) -> None:
        if not net_admin_proof.can_prove(self._sock):
            self._owner.drop(self)
            return
        try:
            self._challenge = net_admin_proof.open_challenge()
        except OSError:
            self._owner.drop(self)
        else:
            self.channel.send(Prove(), self._challenge)

    def _lost(self, malformed: str) -> None:
        if self._is_chosen:
            self._owner.lost(malformed)
        else:
            self._owner.drop(self)
