"""Pods behind a fake API server, as port-forwards reach them by WebSocket.

    client ──GET …/pods/web-1/portforward?ports=80──▶ FakePods ──connect──▶ an address of the test

To clients it behaves as the API server, a kubelet and containerd do together: the port arrives on
both channels before the pod is dialled; a message is delivered once the pod has answered, and until
then no later frame is read; why a dial failed is text on the channel for errors, and then the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import Mapping

from aiohttp import WSCloseCode, WSMsgType, web

from userspace_proxy.model import SocketAddress

_PROTOCOL = "v4.channel.k8s.io"
_DATA, _ERROR = b"\x00", b"\x01"


class FakePods:
    """Pods that run; what isn't here is gone."""

    def __init__(self) -> None:
        self.reports_late = False
        """Why a dial failed follows the first pong, as CRI-O may do it."""
        self.dialled: list[str] = []
        """Each as ``default/web-1:80``, also without success."""
        self._may_dial = asyncio.Event()
        self._may_dial.set()
        self._open: list[web.Request] = []
        self._ports: dict[tuple[str, str], Mapping[int, SocketAddress]] = {}

    def run(
        self, name: str, ports: Mapping[int, SocketAddress], namespace: str = "default"
    ) -> None:
        """Start a pod, or change what answers at its ports; others refuse."""
        self._ports[namespace, name] = ports

    @property
    def open(self) -> int:
        """How many streams have reached their pod and not ended."""
        return len(self._open)

    def kill(self, name: str, namespace: str = "default") -> None:
        """End a pod; open streams go on while what they lead to does.

        Raises:
            KeyError: There is no such pod.
        """
        del self._ports[namespace, name]

    def hold(self) -> None:
        """Delay dials of pods until :meth:`release`."""
        self._may_dial.clear()

    def release(self) -> None:
        """Dial the pods."""
        self._may_dial.set()

    def break_streams(self) -> None:
        """Reset all streams, as an API server that is killed does."""
        for request in self._open:
            if request.transport is not None:
                request.transport.abort()

    async def forward(self, request: web.Request) -> web.StreamResponse:
        """Answer a request for a port-forward."""
        namespace, name = request.match_info["namespace"], request.match_info["name"]
        ports = self._ports.get((namespace, name))
        if ports is None:
            return _status(404, f'pods "{name}" not found')
        if not request.query.get("ports", "").isdigit():
            return _status(400, 'query parameter "port" is required')
        if request.headers.get("Upgrade", "").lower() != "websocket":
            return _status(400, "Upgrade request required")
        port = int(request.query["ports"])
        self.dialled.append(f"{namespace}/{name}:{port}")
        socket = web.WebSocketResponse(protocols=(_PROTOCOL,), autoping=False, max_msg_size=0)
        await socket.prepare(request)
        for channel in (_DATA, _ERROR):
            await socket.send_bytes(channel + struct.pack("<H", port))
        to = ports.get(port)
        try:
            await self._may_dial.wait()
            if to is None:
                raise ConnectionRefusedError("connection refused")
            reader, writer = await asyncio.open_connection(*to)
        except OSError as exc:
            if self.reports_late:
                await _answer_ping(socket)
            text = f"error forwarding port {port} to pod {name}: dial tcp4 127.0.0.1:{port}: {exc}"
            await socket.send_bytes(_ERROR + text.encode())
            await socket.close()
            return socket
        self._open.append(request)
        try:
            await _relay(socket, reader, writer)
        finally:
            self._open.remove(request)
            writer.close()
            await socket.close()
        return socket


async def _answer_ping(socket: web.WebSocketResponse) -> None:
    async for message in socket:
        if message.type is WSMsgType.PING:
            await socket.pong(message.data)
            return


async def _relay(
    socket: web.WebSocketResponse, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Pass bytes on until the client has closed the stream."""
    async with asyncio.TaskGroup() as tasks:
        down = tasks.create_task(_from_pod(socket, reader))
        async for message in socket:
            if message.type is WSMsgType.PING:
                # The pod may have ended the stream meanwhile.
                with contextlib.suppress(ConnectionResetError):
                    await socket.pong(message.data)
            elif message.type is WSMsgType.BINARY and message.data[:1] == _DATA:
                writer.write(message.data[1:])
        down.cancel()


async def _from_pod(socket: web.WebSocketResponse, reader: asyncio.StreamReader) -> None:
    """Pass on what the pod sends, and its end.

    Not by ``close``: while another task receives, that doesn't wait for the client's close, and a
    socket that is closed with unread frames resets the connection: the client may lose bytes.
    """
    try:
        while data := await reader.read(1 << 16):
            await socket.send_bytes(_DATA + data)
    except ConnectionResetError as exc:
        await socket.send_bytes(_ERROR + f"error forwarding port: {exc}".encode())
    await socket.send_frame(struct.pack(">H", WSCloseCode.OK), WSMsgType.CLOSE)


def _status(code: int, message: str) -> web.Response:
    body = {"kind": "Status", "status": "Failure", "code": code, "message": message}
    return web.json_response(body, status=code)
