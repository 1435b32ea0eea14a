"""Tests by dialling whether an endpoint's kernel answers, unnoticed by the program that listens.

    begin ──connect──▶ answered, refused, unreachable, silent until the deadline ──▶ ended

Callers decide when to dial and what an answer means: ``probes`` for ejections,
``plane.path_probes`` for the path. ``explain.dial`` measures without an event loop, for commands.
"""

from __future__ import annotations

import _socket
import errno
from collections.abc import Callable
from functools import partial

from ..kernel.socket_options import stay_unseen
from ..model import DialFailure, Failure, SocketAddress
from ..model.failures import dial_failure
from . import reactor as epoll
from .reactor import Reactor, Timeouts
from .sockets import family_of

Ended = Callable[[SocketAddress, DialFailure | None], None]
"""Takes the endpoint and the failure, or None if the endpoint answered."""

_SILENT = DialFailure(Failure.SILENT, errno.ETIMEDOUT)
_STREAM = _socket.SOCK_STREAM | _socket.SOCK_NONBLOCK


class ProbeDials:
    """The dials in progress, at most one per endpoint.

    Args:
        ended: Called once for each dial, unless it failed at once or was stopped.
    """

    def __init__(self, reactor: Reactor, deadline_s: float, ended: Ended) -> None:
        self._reactor = reactor
        self._ended = ended
        self._socks: dict[SocketAddress, _socket.socket] = {}
        self._deadlines = Timeouts(
            reactor.loop, reactor.clock, deadline_s, partial(self._end, failed=_SILENT)
        )

    def __len__(self) -> int:
        return len(self._socks)

    def begin(self, endpoint: SocketAddress) -> DialFailure | None:
        """Dial an endpoint; return the failure if it fails at once, else None."""
        try:
            sock = _socket.socket(family_of(endpoint.ip), _STREAM)
        except OSError as exc:
            return dial_failure(exc.errno or errno.EIO, endpoint.ip)
        stay_unseen(sock)
        number = sock.connect_ex(endpoint)
        if number in (0, errno.EINPROGRESS):
            try:
                self._reactor.register(sock, epoll.OUT, partial(self._has_event, endpoint))
            except OSError as exc:
                number = exc.errno or errno.EIO
            else:
                self._socks[endpoint] = sock
                self._deadlines.start(endpoint, self._reactor.clock())
                return None
        sock.close()
        return dial_failure(number, endpoint.ip)

    def stop(self, endpoint: SocketAddress) -> None:
        """Cancel a dial. Idempotent."""
        sock = self._socks.pop(endpoint, None)
        if sock is not None:
            self._deadlines.stop(endpoint)
            self._reactor.close_socket(sock)

    def close(self) -> None:
        for endpoint in list(self._socks):
            self.stop(endpoint)
        self._deadlines.close()

    def _has_event(self, endpoint: SocketAddress, _events: int) -> None:
        number = self._socks[endpoint].getsockopt(_socket.SOL_SOCKET, _socket.SO_ERROR)
        self._end(endpoint, dial_failure(number, endpoint.ip) if number else None)

    def _end(self, endpoint: SocketAddress, failed: DialFailure | None) -> None:
        sock = self._socks.pop(endpoint)
        self._deadlines.stop(endpoint)
        self._reactor.close_socket(sock)
        self._ended(endpoint, failed)
