"""Reads whether a TCP socket is connected, and for how long nothing has come."""

from __future__ import annotations

import _socket
import struct

# Struct tcp_info (linux/tcp.h): tcpi_last_data_recv and tcpi_last_ack_recv, in milliseconds.
_MILLISECONDS = struct.Struct("=I")
_LAST_DATA_AT, _LAST_ACK_AT = 52, 56


def is_connected(sock: _socket.socket) -> bool:
    """Return whether a dial was answered, even if its event hasn't been delivered yet."""
    try:
        sock.getpeername()
    except OSError:
        return False
    return True


def silent_s(sock: _socket.socket) -> float:
    """Return for how long a socket has received no data; a FIN isn't data."""
    return _since_s(sock, _LAST_DATA_AT)


def unheard_s(sock: _socket.socket) -> float:
    """Return for how long a socket has received neither data nor a FIN, nor an acknowledgement.

    The RST of a peer that has closed its socket doesn't count.
    """
    return _since_s(sock, _LAST_ACK_AT)


def _since_s(sock: _socket.socket, at: int) -> float:
    info = sock.getsockopt(_socket.IPPROTO_TCP, _socket.TCP_INFO, at + _MILLISECONDS.size)
    return float(_MILLISECONDS.unpack_from(info, at)[0]) / 1000
