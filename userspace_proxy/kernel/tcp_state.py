"""Reads how much data of TCP sockets is unacknowledged, and how relayed connections ended.

    client ◀── answers that aren't acknowledged ── proxy ── requests that aren't ──▶ endpoint
                                                   proxy ◀── bytes behind a gap ─── endpoint

Rule 1: data that the kernel has retransmitted twice in a row without an acknowledgement is lost,
after at least 0.6 s. To a peer that doesn't read, the kernel sends window probes instead.
It also probes if a rule of this node drops the data, which stays unsent though the window has room.
Rule 2: a received FIN or RST doesn't reset the counters of a socket.
Rule 3: data behind a gap uses the socket's buffer memory, but can't be read.
"""

from __future__ import annotations

import _socket
import contextlib
import errno
import fcntl
import struct
from typing import NamedTuple

from ..model.connection_ends import EndedBy, EndReason
from ..model.failures import Failure
from .socket_options import SO_MEMINFO

CLOSE_WAIT = 8
# Struct tcp_info (linux/tcp.h) begins with: state, congestion state, retransmissions, probes.
_TCP_INFO = struct.Struct("=BxBB")
# Numbers from linux/sockios.h, which Python's socket module lacks.
_SIOCINQ, _SIOCOUTQ = 0x541B, 0x5411
# Struct tcp_info: tcpi_last_data_sent; tcpi_last_data_recv, tcpi_last_ack_recv. In milliseconds.
_SENT = struct.Struct("=44xI")
_RECEIVED = struct.Struct("=52xII")
# Struct tcp_info: tcpi_snd_mss, tcpi_unacked; tcpi_notsent_bytes; tcpi_snd_wnd, since Linux 5.4.
_UNSENT = struct.Struct("=16xI4xI116xI80xI")


class TcpInfo(NamedTuple):
    """The kernel's state of a connection."""

    state: int
    """The number of the state, as in net/tcp_states.h."""
    sent_again: int
    """The number of consecutive retransmissions of the same data."""
    probed: int
    """The number of consecutive unanswered probes."""


def is_connected(sock: _socket.socket) -> bool:
    """Return whether a socket is connected, even if the event loop hasn't reported it yet."""
    try:
        sock.getpeername()
    except OSError:
        return False
    return True


def tcp_info(sock: _socket.socket) -> TcpInfo:
    """Return the kernel's state of a connection; an acknowledgement resets the counts."""
    info = sock.getsockopt(_socket.IPPROTO_TCP, _socket.TCP_INFO, _TCP_INFO.size)
    return TcpInfo(*_TCP_INFO.unpack(info))


def unacknowledged_bytes(sock: _socket.socket) -> int:
    """Return how many bytes aren't acknowledged (a FIN counts as one byte); 0 if unknown."""
    return _queued_bytes(sock, _SIOCOUTQ)


def unread_bytes(sock: _socket.socket) -> int:
    """Return the number of unread bytes that have arrived in order; 0 if unknown."""
    return _queued_bytes(sock, _SIOCINQ)


def silence(sock: _socket.socket) -> tuple[float, float]:
    """Return how many seconds ago a socket last received data, and an acknowledgement.

    A FIN counts only as an acknowledgement; the RST of a peer that has closed its socket doesn't.
    """
    info = sock.getsockopt(_socket.IPPROTO_TCP, _socket.TCP_INFO, _RECEIVED.size)
    data_ms, ack_ms = _RECEIVED.unpack(info)
    return data_ms / 1000, ack_ms / 1000


def since_sent_s(sock: _socket.socket) -> float:
    """Return how many seconds ago a socket last sent data, including retransmissions."""
    info = sock.getsockopt(_socket.IPPROTO_TCP, _socket.TCP_INFO, _SENT.size)
    return float(_SENT.unpack(info)[0]) / 1000


def _queued_bytes(sock: _socket.socket, request: int) -> int:
    queued = bytearray(4)
    # A closed socket's number is negative, which is a ValueError.
    with contextlib.suppress(OSError, ValueError):
        fcntl.ioctl(sock.fileno(), request, queued)
    return int(struct.unpack("i", queued)[0])


# Errors of a connected socket whose peer was silent for too long (tcp(7)).
_SILENT = frozenset({errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH})
LOSS_S = 0.9
"""The minimum duration in seconds of a connection that shows loss: the second retransmission in a
row is 0.6 s after the first packet, and a client that gives up after one second began to wait
before its endpoint answered."""
_SENT_AGAIN = 2
# An unacknowledged FIN counts as one byte.
_FIN_BYTES = 1
# The states in which no FIN has arrived in order: ESTABLISHED, FIN_WAIT1, FIN_WAIT2. Source:
# net/tcp_states.h.
_EXPECTS_MORE = frozenset({1, 4, 5})


def reset_as(
    number: int | None, client: _socket.socket, endpoint: _socket.socket
) -> tuple[EndReason, EndedBy]:
    """Return how a connection failed, and which side's socket is no longer connected.

    Args:
        number: The errno, if it is known.
        client: The client's socket; it counts as disconnected unless only the endpoint's is.
    """
    is_by_client = is_connected(endpoint) or not is_connected(client)
    by = EndedBy.CLIENT if is_by_client else EndedBy.ENDPOINT
    return EndReason.TIMED_OUT if number in _SILENT else EndReason.RESET, by


def loss(
    client: _socket.socket,
    endpoint: _socket.socket,
    lasted_s: float,
    number: int | None = None,
) -> Failure | None:
    """Return which packets of a connection were lost if its client left; None if none were.

    Args:
        client: The socket of the client, which has sent a FIN or RST.
        lasted_s: Seconds since the endpoint answered.
        number: The errno of the client's socket, if it failed: a silent client hasn't left.

    Returns:
        A member of ``model.failures.LOSSES``; None also for connections shorter than
        :data:`LOSS_S`.
    """
    if lasted_s < LOSS_S or number in _SILENT:
        return None
    return endpoint_loss(endpoint) or (Failure.NOT_TO_CLIENT if is_lost_to(client) else None)


def endpoint_loss(endpoint: _socket.socket) -> Failure | None:
    """Return which packets to or from an endpoint were lost; None if none were."""
    if is_lost_to(endpoint):
        return Failure.NOT_TO_ENDPOINT
    return Failure.FROM_ENDPOINT if _has_gap(endpoint) else None


def is_lost_to(sock: _socket.socket) -> bool:
    """Return whether data was retransmitted repeatedly without effect, or isn't sent at all."""
    held = unacknowledged_bytes(sock)
    if held <= _FIN_BYTES:
        return False
    return tcp_info(sock).sent_again >= _SENT_AGAIN or _is_unsent(sock, held)


def _is_unsent(sock: _socket.socket, held: int) -> bool:
    """Return whether nothing is in flight though the window admits the first of the held bytes.

    The kernel sends such bytes at once, unless a rule of this node drops them, or it has no route.
    """
    info = sock.getsockopt(_socket.IPPROTO_TCP, _socket.TCP_INFO, _UNSENT.size)
    mss, in_flight, unsent, window = _UNSENT.unpack(info.ljust(_UNSENT.size, b"\0"))
    # A RST empties the queues, after which only the byte count shows what was in flight.
    return not in_flight and unsent == held and bool(window >= min(mss, unsent))


def _has_gap(sock: _socket.socket) -> bool:
    """Return whether only bytes behind a gap have arrived for at least :data:`LOSS_S`.

    Source: sock_diag(7), SK_MEMINFO_RMEM_ALLOC; tcp_data_queue_ofo() in net/ipv4/tcp_input.c.
    """
    if silence(sock)[0] < LOSS_S:
        return False
    used = sock.getsockopt(_socket.SOL_SOCKET, SO_MEMINFO, 4)
    # A FIN also uses memory, and may have arrived since the last data, so check that none has
    # arrived.
    return any(used[:4]) and not unread_bytes(sock) and tcp_info(sock).state in _EXPECTS_MORE
