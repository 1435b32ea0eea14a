"""The contract of dialers for endpoints without a local route: pods behind an API server.

TcpConnection ──dial(port, endpoint, opened)──▶ Dialer ──opened(socket)──▶ joined, as after connect
                       │                              └──opened(errno)───▶ the next endpoint
                       └── the deadline passes, the client is gone: cancel()
"""

from __future__ import annotations

import _socket
from collections.abc import Callable
from typing import Protocol

from ..model import SocketAddress

Opened = Callable[[_socket.socket | int], None]
"""Called once with the outcome of a dial: a connected, non-blocking stream socket, which the callee
closes, or the errno of the failure."""


class Dialer(Protocol):
    """Dials endpoints for TCP clients by other means than ``connect``."""

    def dial(
        self, service_port: str, endpoint: SocketAddress, opened: Opened
    ) -> Callable[[], None]:
        """Begin to dial an endpoint.

        Args:
            service_port: The label of the client's group, such as ``shop/web:http``. Another
                Service port may have the same address for something else.
            endpoint: As listed in the Service port.
            opened: Called after this method has returned.

        Returns:
            A function that cancels the dial; ``opened`` isn't called after that. Idempotent.
        """
