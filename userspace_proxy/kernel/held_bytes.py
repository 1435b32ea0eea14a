"""Has the kernel hold bytes of a TCP socket back for what follows, and send them at once."""

from __future__ import annotations

import _socket
import contextlib

# Not in Python's socket module; linux/socket.h.
_MSG_MORE = 0x8000


def send_held(sock: _socket.socket, data: bytes) -> None:
    """Send bytes in one packet with those that follow; raises OSError."""
    sock.send(data, _MSG_MORE)


def send_at_once(sock: _socket.socket) -> None:
    """Send what is held back, also by Nagle's algorithm, and hold nothing from now on.

    Idempotent; a socket that has just gone takes no option.
    """
    with contextlib.suppress(OSError):
        sock.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_NODELAY, 1)
