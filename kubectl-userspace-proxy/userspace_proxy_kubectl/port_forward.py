"""Opens a stream to a port of a pod, through the API server's port-forward.

    ──GET …/portforward?ports=8080──▶ API server ──▶ kubelet ──▶ container runtime ──▶ pod
    0, 1: two bytes each  ◀── the port, on both channels, before anything is dialled
    0, nothing; ping      ──▶
    1: text               ◀── why the pod's port can't be dialled, or why the stream broke off
    pong, twice           ◀── the pod has answered
    0: bytes              ◀─▶ data

Rule 1: the subprotocol is ``v4.channel.k8s.io``, one stream per WebSocket. Kubelets and container
runtimes of all releases support it, and API servers only relay it.
Rule 2: the protocol doesn't report that a dial succeeded. But the runtime delivers a message to the
stream before it reads the next frame, and reads the stream only once it has connected to the pod;
containerd sends the error text before that. A pong after an empty message therefore means that the
pod has accepted, without any of the client's bytes. CRI-O discards the stream's content while
it sends the error text, so the first pong may overtake the text: two pongs are required.
Rule 3: neither side can close only its own direction. The runtime closes the stream a second after
the pod's FIN, and closing it from this side closes both directions.
Rule 4: if the pod doesn't exist, the watches have missed its deletion, so they are interrupted.

Source: k8s.io/streaming, pkg/httpstream/wsstream; containerd, internal/cri/streamingserver and
internal/cri/server/sandbox_portforward_linux.go; CRI-O, server/container_portforward.go.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, NamedTuple

from userspace_proxy.errors import UserspaceProxyError
from userspace_proxy.sources.kubernetes.api_paths import join
from userspace_proxy.sources.kubernetes.client import ApiClient
from userspace_proxy.sources.kubernetes.responses import (
    Response,
    TransportError,
    read_status,
    unreachable,
)

if TYPE_CHECKING:
    from aiohttp import ClientWebSocketResponse

PROTOCOL = "v4.channel.k8s.io"

_DATA, _ERROR = 0, 1
_PORT_BYTES = 2
_NOTHING = bytes([_DATA])
_PINGS = 2


class ForwardTarget(NamedTuple):
    """A port of a pod."""

    namespace: str
    pod: str
    port: int

    def __str__(self) -> str:
        return f"pod {self.namespace}/{self.pod}, port {self.port}"


class PortForwardError(UserspaceProxyError):
    """A stream can't be opened, or broke.

    Args:
        number: The errno that a TCP connection would fail with for the same reason.
    """

    def __init__(self, message: str, number: int, *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.number = number


class PodStream:
    """A stream to a pod's port, opened by :func:`open_stream`."""

    def __init__(self, to: ForwardTarget, socket: ClientWebSocketResponse[bool]) -> None:
        self._to = to
        self._socket = socket
        self._received = b""
        """Data that arrived before the pong."""
        self._left = [_PORT_BYTES, _PORT_BYTES]
        """The number of bytes of the port number that each channel still has to receive."""

    async def send(self, data: bytes) -> None:
        """Send bytes; wait while the pod doesn't read.

        Raises:
            PortForwardError: The stream is broken.
        """
        await self._send(_NOTHING + data)

    async def receive(self) -> bytes:
        """Return the next bytes; empty at EOF.

        Raises:
            PortForwardError: The stream broke off.
        """
        received, self._received = self._received, b""
        while not received:
            message = await self._next()
            if message is None:
                return b""
            received = message
        return received

    async def ping(self) -> None:
        """Send a ping that carries none of the client's data; its pong is dropped.

        Raises:
            PortForwardError: The stream is broken.
        """
        try:
            await self._socket.ping()
        except OSError as exc:
            raise self._broken("it broke off") from exc

    async def close(self) -> None:
        """Close the stream; idempotent."""
        await self._socket.close()

    async def wait_until_open(self) -> None:
        """Return once the pod has answered.

        Raises:
            PortForwardError: The pod can't be dialled.
        """
        await self._send(_NOTHING)
        for _ in range(_PINGS):
            await self.ping()
            message = await self._next(is_opening=True)
            if message is None:
                raise self._broken("it ended before the pod had answered")
            if message:
                self._received = message
                return

    async def _send(self, message: bytes) -> None:
        try:
            await self._socket.send_bytes(message)
        except OSError as exc:
            raise self._broken("it broke off") from exc

    async def _next(self, *, is_opening: bool = False) -> bytes | None:
        """Return the next data; empty for a pong while opening, and None at EOF."""
        from aiohttp import WSMsgType

        while True:
            message = await self._socket.receive()
            if message.type is WSMsgType.BINARY:
                if data := self._read(message.data):
                    return data
            elif message.type is WSMsgType.PONG:
                if is_opening:
                    return b""
            elif message.type is WSMsgType.PING:
                await self._socket.pong(message.data)
            elif message.type is WSMsgType.CLOSE:
                return None
            else:
                # There was no close frame: the API server or the kubelet is gone.
                raise self._broken("it broke off")

    def _read(self, message: bytes) -> bytes:
        """Return a message's data; raise PortForwardError for a text on the error channel."""
        channel, data = message[:1], message[1:]
        if channel not in (bytes([_DATA]), bytes([_ERROR])):
            return b""
        number = channel[0]
        skipped = min(self._left[number], len(data))
        self._left[number] -= skipped
        data = data[skipped:]
        if number == _ERROR and data:
            text = " ".join(data.decode(errors="replace").split())
            is_refused = "refused" in text
            raise PortForwardError(
                f"{self._to}: {text}", errno.ECONNREFUSED if is_refused else errno.EHOSTUNREACH
            )
        return data

    def _broken(self, why: str) -> PortForwardError:
        return PortForwardError(f"{self._to}: {why}", errno.ECONNRESET)


async def open_stream(client: ApiClient, to: ForwardTarget) -> PodStream:
    """Open a stream to a pod's port, and wait until the pod accepts; the caller closes the stream.

    Raises:
        PortForwardError: The pod is gone or refuses, or the API server refuses or is unreachable.
    """
    path = join("/api/v1/namespaces", to.namespace, "pods", to.pod, "portforward")
    try:
        socket = await client.websocket(path, {"ports": str(to.port)}, PROTOCOL)
    except TransportError as exc:
        raise PortForwardError(unreachable(client.url, exc).text, errno.EHOSTUNREACH) from exc
    if isinstance(socket, Response):
        if socket.code == 404:
            client.doubt_watches()
        raise _refused(to, socket)
    stream = PodStream(to, socket)
    try:
        await stream.wait_until_open()
    except BaseException:
        await stream.close()
        raise
    return stream


def _refused(to: ForwardTarget, response: Response) -> PortForwardError:
    text = " ".join((read_status(response.body).message or "").split())
    text = text or f"HTTP status {response.code}"
    if response.code in (401, 403):
        hint = f"allow this user to get and create pods/portforward in namespace {to.namespace}"
        return PortForwardError(f"{to}: {text}", errno.EACCES, hint=hint)
    return PortForwardError(f"{to}: {text}", errno.EHOSTUNREACH)
