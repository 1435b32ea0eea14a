"""Limits what the kernel buffers for a direction with a stalled reader.

    source ──▶ receive buffer ──▶ pipe ──▶ send queue ──▶ sink
              tcp_rmem[2]        1 MiB    2 MiB unsent   (by Linux alone: tcp_wmem[2])

Rule 1: only a direction that has moved bulk, or was stalled before, is bounded: its buffers
alone have grown, and short connections pay no system call.
Rule 2: the receive buffer is the kernel's: locking its size, whatever the size, cost 5 to 7 % of
bulk (measured), and it has grown only where a reader was fast before it stalled.
Rule 3: what is sent and on its way isn't bounded here: the sink's congestion window decides.
"""

from __future__ import annotations

import _socket
import contextlib

# Below half of it we are woken: so a turn moves a pipe's filling. With 512 KiB it moves little,
# and a GB costs twice the processor time (measured).
UNSENT_BYTES = 2 * 1024 * 1024


def bound_buffers(sink: _socket.socket) -> None:
    """Bound what the kernel queues unsent for a sink, from now on.

    An end that has just gone is no error.
    """
    with contextlib.suppress(OSError):
        sink.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)
