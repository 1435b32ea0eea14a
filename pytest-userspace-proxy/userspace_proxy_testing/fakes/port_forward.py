"""Pods behind a fake API server, reached by port-forwards over WebSocket.

    client ──GET …/pods/web-1/portforward?ports=80──▶ FakePods ─┬─connect──▶ an address of the test
                                                                └─call─────▶ a function of the test

To clients, it behaves like API server, kubelet and containerd together: the port arrives on both
channels before the pod is dialled; a message is delivered once the pod has answered, and until then
no later frame is read; if a dial fails, the error channel carries the reason, and the stream ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping

from aiohttp import WSCloseCode, WSMsgType, web

from userspace_proxy.model import SocketAddress

_PROTOCOL = "v4.channel.k8s.io"
_DATA, _ERROR = b"\x00", b"\x01"
_PART_BYTES = 1 << 15
_MASK_BYTES = 4

Send = Callable[[bytes], Awaitable[None]]
"""Sends bytes to the client; raises ConnectionResetError once the client is gone."""
Serve = Callable[[asyncio.StreamReader, Send], Awaitable[None]]
"""Serves a pod's port, given a reader of the client's bytes; its return sends the FIN."""


class FakePods:
    """The running pods; port-forwards to other pods are rejected."""

    def __init__(self) -> None:
        self.reports_late = False
        """Whether the error text of a failed dial follows the first pong, as with CRI-O."""
        self.dialled: list[str] = []
        """All requested ports, such as ``default/web-1:80``, including failed dials."""
        self.forbidden: set[str] = set()
        """Pods whose ports this user may not forward, such as ``default/web-1``."""
        self.passed_bytes: Counter[str] = Counter()
        """Bytes of the frames in both directions, by pod, such as ``default/web-1``."""
        self.logs: dict[str, str] = {}
        """The log of each pod's container, by pod, such as ``default/web-1``."""
        self._may_dial = asyncio.Event()
        self._may_dial.set()
        self._open: list[web.Request] = []
        self._ports: dict[str, Mapping[int, SocketAddress | Serve]] = {}

    def run(
        self,
        name: str,
        ports: Mapping[int, SocketAddress | Serve],
        namespace: str = "default",
    ) -> None:
        """Start a pod, or change the servers of its ports; its other ports refuse."""
        self._ports[f"{namespace}/{name}"] = ports

    @property
    def open(self) -> int:
        """The number of open streams that have reached their pod."""
        return len(self._open)

    def kill(self, name: str, namespace: str = "default") -> None:
        """End a pod; its open streams continue.

        Raises:
            KeyError: The pod doesn't exist.
        """
        del self._ports[f"{namespace}/{name}"]

    def hold(self) -> None:
        """Delay dials of pods until :meth:`release`."""
        self._may_dial.clear()

    def release(self) -> None:
        """Dial the pods that have been waiting since :meth:`hold`."""
        self._may_dial.set()

    def break_streams(self) -> None:
        """Reset the streams that have reached their pod, as a killed API server does."""
        for request in self._open:
            if request.transport is not None:
                request.transport.abort()

    async def forward(self, request: web.Request) -> web.StreamResponse:
        """Answer a request for a port-forward."""
        name = request.match_info["name"]
        pod = f"{request.match_info['namespace']}/{name}"
        ports = self._ports.get(pod)
        if pod in self.forbidden:
            text = f'pods "{name}" is forbidden: User "test" cannot get resource "pods/portforward"'
            return _status(403, "Forbidden", text)
        if ports is None:
            return _status(404, "NotFound", f'pods "{name}" not found')
        if not request.query.get("ports", "").isdigit():
            return _status(400, "BadRequest", 'query parameter "port" is required')
        if request.headers.get("Upgrade", "").lower() != "websocket":
            return _status(400, "BadRequest", "Upgrade request required")
        port = int(request.query["ports"])
        self.dialled.append(f"{pod}:{port}")
        socket = web.WebSocketResponse(protocols=(_PROTOCOL,), autoping=False, max_msg_size=0)
        await socket.prepare(request)
        stream = _Stream(socket, lambda size: self.passed_bytes.update({pod: size}))
        for channel in (_DATA, _ERROR):
            await stream.send(channel + struct.pack("<H", port))
        to = ports.get(port)
        try:
            await self._may_dial.wait()
            if to is None:
                raise ConnectionRefusedError("connection refused")
            pod_end = await _dial(to, stream)
        except OSError as exc:
            if self.reports_late:
                await stream.answer_ping()
            text = f"error forwarding port {port} to pod {name}: dial tcp4 127.0.0.1:{port}: {exc}"
            await stream.send(_ERROR + text.encode())
            await socket.close()
            return socket
        self._open.append(request)
        try:
            await stream.relay(pod_end)
        finally:
            self._open.remove(request)
            pod_end.close()
            await socket.close()
        return socket

    async def log(self, request: web.Request) -> web.Response:
        """Answer a request for the log of a pod's container."""
        name = request.match_info["name"]
        pod = f"{request.match_info['namespace']}/{name}"
        if pod not in self.logs and pod not in self._ports:
            return _status(404, "NotFound", f'pods "{name}" not found')
        lines = self.logs.get(pod, "").splitlines(keepends=True)
        if (most := request.query.get("tailLines", "")).isdigit():
            lines = lines[len(lines) - min(int(most), len(lines)) :]
        body = "".join(lines).encode()
        if (most := request.query.get("limitBytes", "")).isdigit():
            body = body[: int(most)]
        return web.Response(body=body, content_type="text/plain")


class _PodEnd:
    """The target of a stream.

    Args:
        down: Forwards the pod's bytes until their end.
        take: Forwards the client's bytes to the pod.
        close: Ends the connection to the pod.
    """

    def __init__(
        self,
        down: Callable[[], Awaitable[None]],
        take: Callable[[bytes], None],
        close: Callable[[], None],
    ) -> None:
        self.down, self.take, self.close = down, take, close


class _Stream:
    """One port-forward, whose frames are counted."""

    def __init__(self, socket: web.WebSocketResponse, count: Callable[[int], None]) -> None:
        self._socket = socket
        self._count = count

    async def send(self, message: bytes) -> None:
        self._count(_frame_bytes(message))
        await self._socket.send_bytes(message)

    async def send_data(self, data: bytes) -> None:
        for start in range(0, len(data), _PART_BYTES):
            await self.send(_DATA + data[start : start + _PART_BYTES])

    async def send_end(self, error: str = "") -> None:
        """Send the error of the pod's connection, if any, and the end of the stream.

        It doesn't use ``close``, which doesn't wait for the client's close while another task
        receives. Closing a socket with unread frames resets it, so the client could lose bytes.
        """
        if error:
            await self.send(_ERROR + f"error forwarding port: {error}".encode())
        await self._socket.send_frame(struct.pack(">H", WSCloseCode.OK), WSMsgType.CLOSE)

    async def answer_ping(self) -> None:
        async for message in self._socket:
            if message.type is WSMsgType.PING:
                await self._socket.pong(message.data)
                return

    async def relay(self, pod: _PodEnd) -> None:
        """Forward bytes until the client has closed the stream."""
        async with asyncio.TaskGroup() as tasks:
            down = tasks.create_task(_run(pod.down))
            async for message in self._socket:
                self._count(_frame_bytes(message.data or b"") + _MASK_BYTES)
                if message.type is WSMsgType.PING:
                    # The pod may have ended the stream, and then no pong is needed.
                    with contextlib.suppress(ConnectionResetError):
                        await self._socket.pong(message.data)
                elif message.type is WSMsgType.BINARY and message.data[:1] == _DATA:
                    pod.take(message.data[1:])
            down.cancel()


async def _run(down: Callable[[], Awaitable[None]]) -> None:
    # The client may be gone, and then the rest of the pod's bytes is dropped.
    with contextlib.suppress(ConnectionResetError):
        await down()


async def _dial(to: SocketAddress | Serve, stream: _Stream) -> _PodEnd:
    if callable(to):
        taken = asyncio.StreamReader()

        async def answer() -> None:
            await to(taken, stream.send_data)
            await stream.send_end()

        return _PodEnd(answer, taken.feed_data, taken.feed_eof)
    reader, writer = await asyncio.open_connection(*to)

    async def pass_on() -> None:
        error = ""
        try:
            while data := await reader.read(1 << 16):
                await stream.send(_DATA + data)
        except ConnectionResetError as exc:
            error = str(exc)
        await stream.send_end(error)

    return _PodEnd(pass_on, writer.write, writer.close)


def _frame_bytes(message: bytes) -> int:
    """Return the size of an unmasked frame."""
    size = len(message)
    return size + (2 if size < 126 else 4 if size < 1 << 16 else 10)


def _status(code: int, reason: str, message: str) -> web.Response:
    body = {"kind": "Status", "status": "Failure", "code": code, "reason": reason}
    return web.json_response({**body, "message": message}, status=code)
