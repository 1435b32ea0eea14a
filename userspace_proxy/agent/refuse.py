"""The refuse port: a local port that nobody listens on, and nobody else can take.

A TCP socket that is bound and doesn't listen keeps the number; the kernel answers
with a RST. Rules reject what is steered there, UDP included (DESIGN: refusing).
"""

from __future__ import annotations

import socket

from ..errors import ListenError


class RefusePort:
    """The reserved port of one proxy; taken from the end of the proxy port range."""

    def __init__(self) -> None:
        self.number = 0
        """0 before :meth:`open`."""
        self._socket: socket.socket | None = None

    def open(self, first: int, last: int) -> int:
        """Reserve the highest number of the range that is free, and return it.

        Raises:
            ListenError: None is.
        """
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        for port in range(last, first - 1, -1):
            try:
                sock.bind(("0.0.0.0", port))
            except OSError:
                continue
            self._socket = sock
            self.number = port
            return port
        sock.close()
        raise ListenError(
            f"cannot reserve a refuse port: every port of {first}-{last} is in use",
            hint="widen --proxy-port-range",
        )

    def close(self) -> None:
        """Give the port back; idempotent."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
