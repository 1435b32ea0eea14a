"""Delays ACKs of a new TCP connection, so that they travel with the data that follows.

    client's bytes ──▶ their ACK travels with the answer
    endpoint's SYN-ACK ──▶ its ACK travels with the client's bytes
    answer ──▶ its ACK travels with the FIN
         └──▶ still open after HELD_S: ACKs are sent as on any other socket

Rule 1: accepted sockets inherit held ACKs from the listening socket, without a system call each.
Rule 2: the ACK of the endpoint's handshake is held back if the last connection of the Service port
had bytes to send when its endpoint answered. If this connection has none, the ACK is sent at once:
until then the endpoint sees no connection, so a server that speaks first would wait.
Rule 3: no ACK is held back for longer than HELD_S, or BEHIND_S while the loop is behind: with
Nagle's algorithm, a peer that writes twice sends the rest after the ACK.

Source: net/ipv4/tcp.c, tcp_sock_set_quickack(); net/ipv4/tcp_input.c,
tcp_rcv_synsent_state_process() for the handshake's ACK.
"""

from __future__ import annotations

import _socket
import contextlib
from typing import Protocol

from .calls import SystemCalls
from .reactor import Reactor
from .timeouts import Timeouts

# Most short connections between pods end within a millisecond, the resolution of uvloop's timers.
HELD_S = 0.002

# While connections wait for the loop, not for a peer, two more calls per connection would slow it.
BEHIND_S = 0.02


class _Accepted(Protocol):
    """The part of ``TcpConnection`` that is used here."""

    client_fd: int
    started: float

    @property
    def endpoint_fd(self) -> int: ...
    def __hash__(self) -> int: ...


class HeldAcks(Timeouts):
    """The open connections of one data plane whose ACKs are held back."""

    def __init__(self, reactor: Reactor) -> None:
        super().__init__(reactor.loop, reactor.clock, HELD_S, self._release)
        self._reactor = reactor

    def _release(self, connection: _Accepted) -> None:
        now = self._reactor.clock()
        may_hold = now - connection.started < BEHIND_S - HELD_S
        if may_hold and self._reactor.is_behind(now):
            self.start(connection, now)
            return
        calls, endpoint = self._reactor.calls, connection.endpoint_fd
        send_acks(calls, connection.client_fd)
        if endpoint >= 0:
            send_acks(calls, endpoint)


def hold_acks(sock: _socket.socket) -> None:
    """Delay ACKs until there is data, up to the kernel's limits: 40 ms, in a handshake 200 ms.

    Call it before ``connect``, but after ``listen``, which undoes it.
    """
    with contextlib.suppress(OSError):  # Not a TCP socket.
        sock.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_QUICKACK, 0)


def send_acks(calls: SystemCalls, fd: int) -> None:
    """Undo :func:`hold_acks`: send the pending ACK, and leave later ones to the kernel."""
    calls.set_option(fd, _socket.IPPROTO_TCP, _socket.TCP_QUICKACK, 1)
