"""A connection that never rests: something is sent and comes back, again and again."""

from __future__ import annotations

import socket
import struct
import threading

from tests.cluster.waiting import wait_for

_MESSAGE = b"are you there?"
# Of struct tcp_info. Source: linux/tcp.h.
_RETRANSMITTED = struct.Struct("=100xI")
# A flow that gets no answer for this long has ended, whatever its socket says.
_DEAD_S = 10.0


class Flow:
    """One connection to an echo server, and how often it had to send again.

    Args:
        sock: Connected; closed at the end.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.broken = ""
        """Why it ended before it was closed; empty while it lives."""
        self.retransmitted = 0
        """Segments; of those whose answers were dropped, too. A busy machine sends none again."""
        self._answers = 0
        self._sock = sock
        self._sock.settimeout(_DEAD_S)
        self._is_closing = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def until_it_flows(self, *, count: int = 20) -> None:
        """Wait for that many answers, or for its end."""
        wanted = self._answers + count
        wait_for("answers", lambda: bool(self.broken) or self._answers >= wanted)

    def _run(self) -> None:
        try:
            while not self._is_closing.wait(0.005):
                self._sock.sendall(_MESSAGE)
                got = b""
                while len(got) < len(_MESSAGE):
                    part = self._sock.recv(len(_MESSAGE) - len(got))
                    if not part:
                        raise ConnectionError("closed by the other side")
                    got += part
                self.retransmitted = _retransmitted(self._sock)
                self._answers += 1
        except OSError as exc:
            self.broken = str(exc) or type(exc).__name__

    def __enter__(self) -> Flow:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._is_closing.set()
        self._thread.join(30)
        self._sock.close()


def _retransmitted(sock: socket.socket) -> int:
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _RETRANSMITTED.size)
    (count,) = _RETRANSMITTED.unpack(info)
    return int(count)
