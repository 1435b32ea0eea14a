"""Ends a connection by a reset instead of a FIN: of an asyncio stream, or a socket."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct

# SO_LINGER, on and with no time: closing sends a reset. Source: socket(7).
_RESET = struct.pack("ii", 1, 0)


def reset(writer: asyncio.StreamWriter) -> None:
    """End a connection by a reset."""
    sock = writer.get_extra_info("socket")
    if sock is not None:
        reset_on_close(sock)
    writer.transport.abort()


def reset_on_close(sock: socket.socket) -> None:
    """Have a connection end by a reset when its socket is closed."""
    # uvloop raises ValueError once the socket is closed.
    with contextlib.suppress(OSError, ValueError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
