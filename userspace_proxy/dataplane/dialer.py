"""The contract of what reaches endpoints without an address here: pods behind an API server.

TcpDial ──dial(port, endpoint, opened)──▶ Dialer ──opened(socket)──▶ joined, as after a connect
                 │                              └──opened(errno)───▶ the next endpoint
                 └── the deadline passes, the client is gone: cancel()
"""

from __future__ import annotations

import _socket
from collections.abc import Callable
from typing import Protocol

from ..model import SocketAddress

Opened = Callable[[_socket.socket | int], None]
"""Takes the outcome of a dial, once: a connected, non-blocking stream socket, which it closes, or
the errno of the failure."""


class Dialer(Protocol):
    """Dials endpoints for TCP clients in another way than by ``connect``."""

    def dial(
        self, service_port: str, endpoint: SocketAddress, opened: Opened
    ) -> Callable[[], None]:
        """Begin to dial an endpoint.

        Args:
            service_port: The label of the group whose client it is for, such as ``shop/web:http``.
                Another Service port may have the same address for something else.
            endpoint: As the Service port has it.
            opened: Called later, not before this returns.

        Returns:
            What gives the dial up; ``opened`` isn't called after that. Idempotent.
        """
