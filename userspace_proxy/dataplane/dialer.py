"""Defines dialers for endpoints that ``connect`` can't reach, such as pods behind an API server.

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
    """A way other than ``connect`` to dial endpoints for TCP clients."""

    def dial(
        self, service_port: str, endpoint: SocketAddress, opened: Opened
    ) -> Callable[[], None]:
        """Begin to dial an endpoint.

        Args:
            service_port: The label of the client's group, such as ``shop/web:http``. Another
                Service port may use the same address for another purpose.
            endpoint: The address that the Service port lists.
            opened: Called after this method has returned.

        Returns:
            A function that cancels the dial; ``opened`` isn't called after that. Idempotent.
        """
