"""Limits what the kernel buffers for a direction whose reader stalls.

    source ──▶ receive buffer ──▶ pipe ──▶ send queue ──▶ sink
              tcp_rmem[2]        1 MiB    2 MiB unsent   (Linux alone: tcp_wmem[2])

Rule 1: only a direction that has moved bulk, or was stalled before, is bounded: its buffers alone
have grown, and short connections cost no system call.
Rule 2: the receive buffer is left to the kernel: locking its size, whatever the size, cost 5 to 7 %
of bulk (measured), and it has grown only if the reader was fast before it stalled.
Rule 3: what was sent isn't bounded here: the sink's congestion window decides.
"""

from __future__ import annotations

import _socket
import contextlib

# The socket is writable below half of it, so a pipe's filling is moved at once. With 512 KiB little
# is, and a GB costs twice the processor time (measured).
UNSENT_BYTES = 2 * 1024 * 1024


def bound_buffers(sink: _socket.socket) -> None:
    """Bound what the kernel queues unsent for a sink, unless that has just gone."""
    with contextlib.suppress(OSError):
        sink.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)
