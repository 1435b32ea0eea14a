"""Target for any client's bytes to the status ports; the first byte selects the port."""

from __future__ import annotations

import asyncio
import functools
import logging
import socket
from typing import Any

from tests.unit.status.views import NOW, make_troubled_view
from userspace_proxy.status.server import StatusServer

# The time limit for an answer, because a connection with an incomplete request stays open after the
# client's FIN.
_ANSWER_S = 5.0


class Servers:
    """Both status servers in a separate event loop, and their logged bugs."""

    def __init__(self) -> None:
        self.bugs: list[Any] = []
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(lambda _loop, context: self.bugs.append(context))
        handler = logging.Handler(logging.WARNING)
        handler.emit = self.bugs.append  # type: ignore[method-assign]
        logging.getLogger("userspace_proxy").addHandler(handler)
        self._server = StatusServer(make_troubled_view, clock=lambda: NOW)
        self._loop.run_until_complete(self._server.serve_admin(("127.0.0.1", 0)))
        self._loop.run_until_complete(self._server.serve_health(("127.0.0.1", 0)))

    def answer(self, which: int, request: bytes) -> bytes:
        """Return all bytes that a server sends to a client that sends these bytes and a FIN."""
        return self._loop.run_until_complete(self._answer(which, request))

    async def _answer(self, which: int, request: bytes) -> bytes:
        ours, theirs = socket.socketpair()
        self._server._open[which % 2][0]._start(ours)
        reader, writer = await asyncio.open_unix_connection(sock=theirs)
        try:
            writer.write(request)
            writer.write_eof()
            async with asyncio.timeout(_ANSWER_S):
                return await reader.read()
        except ConnectionError:
            return b""
        finally:
            writer.close()


@functools.cache
def servers() -> Servers:
    """Return the servers, which run until the process exits."""
    return Servers()


def check_http(data: bytes) -> None:
    """Check that a client gets HTTP answers, no internal server error, and then a FIN."""
    if not data:
        return
    answer = servers().answer(data[0], data[1:])
    assert not answer or answer.startswith(b"HTTP/1."), answer[:100]
    assert answer[9:10] != b"5" or answer[9:12] == b"503", answer[:100]
    bugs, servers().bugs = servers().bugs, []
    assert not bugs, bugs
