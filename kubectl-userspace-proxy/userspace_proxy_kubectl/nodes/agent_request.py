"""Asks one agent over a port-forward; the event loop runs between any two pieces of its answer."""

from __future__ import annotations

from collections.abc import AsyncIterator

from userspace_proxy.errors import UserspaceProxyError
from userspace_proxy.sources.base import pause
from userspace_proxy.sources.kubernetes.client import ApiClient
from userspace_proxy.status.http_answer import Bounds, HttpAnswer, Unreadable, request_for

from ..port_forward import ForwardTarget, PodStream, open_stream

_TEXT_MAX = 200


class OtherStatus(UserspaceProxyError):
    """The answer's status isn't 200.

    Args:
        code: The status.
        text: The start of the answer, as one line.
    """

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"HTTP status {code}{f': {text}' if text else ''}")
        self.code = code
        self.text = text


class OpenAnswer:
    """The answer of an agent that was asked; see :func:`asking`. Its body is read once."""

    def __init__(self, stream: PodStream, bounds: Bounds) -> None:
        self._stream = stream
        self._answer = HttpAnswer(bounds)

    async def pieces(self) -> AsyncIterator[bytes]:
        """Yield the body as it arrives; an empty piece first, when its first byte has arrived.

        Raises:
            PortForwardError: The stream broke.
            Unreadable, TooLarge, OtherStatus: The answer can't be used.
        """
        has_begun = False
        refusal = bytearray()
        while not self._answer.is_complete:
            data = await self._stream.receive()
            if not has_begun:
                has_begun = True
                yield b""
            for piece in self._answer.feed(data):
                if self._answer.code == 200:
                    yield piece
                elif len(refusal) < _TEXT_MAX:
                    refusal += piece[:_TEXT_MAX]
                await pause(0)
            if self._answer.code not in (0, 200) and len(refusal) >= _TEXT_MAX:
                break
        if self._answer.code != 200:
            if not self._answer.is_of_proxy:
                raise Unreadable("another program answers at that port, perhaps kube-proxy")
            text = " ".join(refusal.decode(errors="replace").split())
            raise OtherStatus(self._answer.code, text[:_TEXT_MAX])

    async def whole(self) -> bytes:
        return b"".join([piece async for piece in self.pieces()])

    async def ping(self) -> None:
        """Keep an idle stream open."""
        await self._stream.ping()

    async def close(self) -> None:
        """End the port-forward; idempotent."""
        await self._stream.close()


async def ask(client: ApiClient, to: ForwardTarget, path: str, bounds: Bounds) -> OpenAnswer:
    """Send a request to an agent; the caller reads the answer and closes it.

    Raises:
        PortForwardError: The pod can't be reached.
    """
    stream = await open_stream(client, to)
    try:
        host = f"127.0.0.1:{to.port}"
        request = request_for(path, host, accept="application/json", takes_gzip=True)
        await stream.send(request)
    except BaseException:
        await stream.close()
        raise
    return OpenAnswer(stream, bounds)
