"""Reads whether a TCP socket is connected, what its kernel waits for, and for how long."""

from __future__ import annotations

import _socket
import contextlib
import fcntl
import struct
from typing import NamedTuple

CLOSE_WAIT = 8
# Struct tcp_info (linux/tcp.h) begins with: state, congestion state, retransmissions, probes.
_TCP_INFO = struct.Struct("=BxBB")
# linux/sockios.h: not in Python's socket module.
_SIOCINQ, _SIOCOUTQ = 0x541B, 0x5411
# Struct tcp_info: tcpi_last_data_sent; tcpi_last_data_recv, tcpi_last_ack_recv. In milliseconds.
_SENT = struct.Struct("=44xI")
_RECEIVED = struct.Struct("=52xII")


class TcpInfo(NamedTuple):
    """What a socket's kernel does."""

    state: int
    """Of linux/tcp_states.h."""
    sent_again: int
    """How often in a row it has sent the same data again."""
    probed: int
    """How often in a row it has sent a probe."""


def is_connected(sock: _socket.socket) -> bool:
    """Return whether a dial was answered, even if its event hasn't been delivered yet."""
    try:
        sock.getpeername()
    except OSError:
        return False
    return True


def tcp_info(sock: _socket.socket) -> TcpInfo:
    """Return what the kernel does; the figures are those without an answer."""
    info = sock.getsockopt(_socket.IPPROTO_TCP, _socket.TCP_INFO, _TCP_INFO.size)
    return TcpInfo(*_TCP_INFO.unpack(info))


def unacknowledged_bytes(sock: _socket.socket) -> int:
    """Return how many bytes the other side hasn't acknowledged; its FIN is one."""
    return _queued_bytes(sock, _SIOCOUTQ)


def unread_bytes(sock: _socket.socket) -> int:
    """Return how many bytes have arrived in order, and weren't read."""
    return _queued_bytes(sock, _SIOCINQ)


def silence(sock: _socket.socket) -> tuple[float, float]:
    """Return for how long a socket has received no data, and not even a FIN or acknowledgement.

    A FIN isn't data. The RST of a peer that has closed its socket doesn't count.
    """
    info = sock.getsockopt(_socket.IPPROTO_TCP, _socket.TCP_INFO, _RECEIVED.size)
    data_ms, ack_ms = _RECEIVED.unpack(info)
    return data_ms / 1000, ack_ms / 1000


def since_sent_s(sock: _socket.socket) -> float:
    """Return for how long a socket has sent no data, also not again."""
    info = sock.getsockopt(_socket.IPPROTO_TCP, _socket.TCP_INFO, _SENT.size)
    return float(_SENT.unpack(info)[0]) / 1000


def _queued_bytes(sock: _socket.socket, request: int) -> int:
    queued = bytearray(4)
    with contextlib.suppress(OSError):
        fcntl.ioctl(sock.fileno(), request, queued)
    return int(struct.unpack("i", queued)[0])
