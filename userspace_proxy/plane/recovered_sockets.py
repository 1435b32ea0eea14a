"""Opens the ports to which rules of an earlier run steer, before their Services are known.

    crash ─▶ rules steer to closed ports: refused ─▶ open ─▶ clients queue ─▶ take ─▶ served
                                                       └─ not taken: close ─▶ refused

Rule 1: no client is accepted, and no datagram received, before a listener takes the socket.
Rule 2: the kernel completes the handshake of any client, so a listener that refuses or restricts
clients doesn't take over the queue, and waiting clients are reset.
Rule 3: a port that another program uses is skipped, and reported once a listener wants it.

Source: docs/adr/0076.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable

from ..errors import ListenError, ShortageError
from ..kernel.listening_sockets import open_listening
from ..model import Protocol, SocketAddress
from ..model.serving import Serving
from .listener import wrapped


class RecoveredSockets:
    """The sockets, one per port, that no listener has taken over yet."""

    def __init__(self) -> None:
        self._sockets: dict[tuple[Protocol, SocketAddress], socket.socket] = {}

    def __len__(self) -> int:
        return len(self._sockets)

    def open(
        self, wanted: Iterable[tuple[Protocol, SocketAddress]], most: int, *, transparent: bool
    ) -> None:
        """Open sockets until a limit or shortage is reached; skip addresses that can't be bound."""
        for protocol, at in wanted:
            if len(self._sockets) >= most:
                break
            try:
                sock = open_listening(protocol, at, freebind=True, transparent=transparent)
            except ShortageError:
                break
            except ListenError:
                continue
            self._sockets[protocol, at] = wrapped(sock)

    def take(
        self, protocol: Protocol, at: SocketAddress, serving: Serving
    ) -> tuple[socket.socket, ...]:
        """Take the recovered socket on an address, for a listener with this ``Serving``.

        Returns a tuple of one socket, which the caller closes. The tuple is empty if there is no
        socket, or if it is unusable; an unusable socket is closed.
        """
        sock = self._sockets.pop((protocol, at), None)
        if sock is None:
            return ()
        if serving.admits is None and not serving.is_refusing:
            return (sock,)
        sock.close()
        return ()

    def close(self) -> None:
        """Close the sockets that weren't taken. Idempotent."""
        while self._sockets:
            self._sockets.popitem()[1].close()
