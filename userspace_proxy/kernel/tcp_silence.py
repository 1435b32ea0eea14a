"""Reads for how long a TCP connection has been silent."""

from __future__ import annotations

import _socket
import struct

# Struct tcp_info (linux/tcp.h): tcpi_last_data_recv, in milliseconds.
_LAST_DATA = struct.Struct("=I")
_LAST_DATA_AT = 52


def silent_s(sock: _socket.socket) -> float:
    """Return for how long a socket has received no data; a FIN isn't data."""
    size = _LAST_DATA_AT + _LAST_DATA.size
    info = sock.getsockopt(_socket.IPPROTO_TCP, _socket.TCP_INFO, size)
    return float(_LAST_DATA.unpack_from(info, _LAST_DATA_AT)[0]) / 1000
