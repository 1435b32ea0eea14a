"""Processes that connect to an orphaned worker, until one has proved that it may command it.

    candidate ──HandOver──▶ worker ──Prove, a socket──▶ candidate
              ──Proved────▶ worker: the socket shows CAP_NET_ADMIN, this one is chosen

With a worker's sockets a process gets the clients of all Services, and reads what they send. Root
in a container of the host's network may have no capability, and must not get them, so the user
isn't enough.

Rule 1: a candidate is challenged when it connects (``reception``), and sent nothing but Prove. Any
message but HandOver, once, and the proof ends its connection.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from functools import partial

from ..kernel import abstract_sockets, net_admin_proof
from .channel import Channel
from .messages import FromWorker, HandOver, Prove, Proved, ToWorker
from .reception import Reception

Receive = Callable[[ToWorker, list[int]], None]
Lost = Callable[[str], None]
_Channel = Channel[ToWorker, FromWorker]

# The next control process answers within milliseconds, unless the node is busy.
_PROVE_S = 1.0


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
        self._chosen = chosen
        self._reception = Reception[_Candidate](
            loop,
            rendezvous.fileno(),
            partial(abstract_sockets.accept, rendezvous),
            admit=self._admit,
            dismiss=_Candidate.close,
        )

    def close(self) -> None:
        """Wait no more, and hang up on all that weren't chosen. Idempotent."""
        self._reception.close()

    def choose(self, candidate: _Candidate) -> None:
        """Have a candidate be the next control process."""
        self._reception.leave(candidate)
        self._chosen(candidate.channel)

    def drop(self, candidate: _Candidate) -> None:
        self._reception.leave(candidate)
        candidate.close()

    def _admit(self, sock: socket.socket) -> _Candidate | None:
        if net_admin_proof.can_prove(sock):
            try:
                challenge = net_admin_proof.open_challenge()
            except OSError:
                sock.close()
                return None
            return _Candidate(self._loop, self, sock, challenge)
        sock.close()
        return None


class _Candidate:
    """One process that has connected."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        owner: Candidates,
        sock: socket.socket,
        challenge: socket.socket,
    ) -> None:
        self._owner = owner
        self._sock = sock
        self._challenge = challenge
        self._has_asked = False
        self._is_chosen = False
        self._deadline = loop.call_later(_PROVE_S, owner.drop, self)
        self.channel = owner.open_channel(sock, self._receive, self._lost)
        self.channel.send(Prove(), challenge)

    def close(self) -> None:
        self.channel.close()
        self._end_challenge()

    def _end_challenge(self) -> None:
        self._deadline.cancel()
        self._challenge.close()

    def _receive(self, message: ToWorker, descriptors: list[int]) -> None:
        if self._is_chosen:
            self._owner.receive(message, descriptors)
            return
        for descriptor in descriptors:
            os.close(descriptor)
        if isinstance(message, HandOver) and not self._has_asked:
            self._has_asked = True
        elif isinstance(message, Proved) and net_admin_proof.is_answered(
            self._challenge, self._sock, message.proof
        ):
            self._is_chosen = True
            self._end_challenge()
            self._owner.choose(self)
            self._owner.receive(HandOver(), [])
        else:
            self._owner.drop(self)

    def _lost(self, malformed: str) -> None:
        if self._is_chosen:
            self._owner.lost(malformed)
        else:
            self._owner.drop(self)
