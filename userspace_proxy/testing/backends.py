"""Backends of a test's Services: in the test's process, as a command, or anywhere else.

``2``: HTTP servers that answer their name; with UDP, servers that answer name and datagram
``[echo, http("hello")]``: ready-made ones
``[handler]``: a function of the test, which gets an HTTP request, or a reader and a writer
``[["redis-server", "--port={port}"]]``: a command
``["127.0.0.1:8081"]``: an address that another program serves
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple

from ..agent.arguments import EndpointAddress, read_endpoint
from ..agent.loop_thread import LoopThread
from ..errors import SandboxError
from ..faults.stream import reset
from ..model import SocketAddress
from .http_serving import HttpAnswer, HttpHandler, HttpRequest, serve_http

StreamHandler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
BackendLike = EndpointAddress | HttpHandler | StreamHandler | list[str]
"""What a backend can be made of."""

_HOST = "127.0.0.1"
_COMMAND_READY_S = 20.0
_COMMAND_ENDS_S = 5.0
_RETRY_S = 0.01


def http(answer: HttpAnswer) -> HttpHandler:
    """Return a backend that gives each HTTP request this answer."""
    return lambda _request: answer


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Return what it receives, and the FIN; a backend."""
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()


class FaultControl(NamedTuple):
    """Sets and removes the faults of one Service."""

    add: Callable[..., None]
    remove: Callable[..., None]


class Backend:
    """One backend of a Service; :meth:`stop` and :meth:`start` make it die and return.

    This class itself is a backend that another program serves.
    """

    is_own = False
    """Whether it is served for this test."""

    def __init__(self, name: str, address: SocketAddress) -> None:
        self.name = name
        self.address = address
        self.is_draining = False
        self._control: FaultControl | None = None

    def __repr__(self) -> str:
        return f"<Backend {self.name} at {self.address}{self._state()}>"

    def start(self) -> None:
        """Serve again, at the same address. Idempotent."""
        raise TypeError(f"{self!r} is served by another program: it can't be started here")

    def stop(self) -> None:
        """Refuse connections from now on, and reset the open ones. Idempotent."""
        raise TypeError(f"{self!r} is served by another program: it can't be stopped here")

    def fault(
        self, type_: str, *, stream: str = "downstream", toxicity: float = 1.0, **attributes: int
    ) -> None:
        """Make connections to it suffer a fault: see :meth:`.EmbeddedProxy.add_fault`."""
        self._controlled().add(
            type_, endpoint=self.address, stream=stream, toxicity=toxicity, **attributes
        )

    def heal(self) -> None:
        """Remove its faults. Idempotent."""
        self._controlled().remove(endpoint=self.address)

    def attach(self, control: FaultControl) -> None:
        """Say who sets faults of the Service to which it belongs."""
        self._control = control

    def _controlled(self) -> FaultControl:
        assert self._control is not None, "it belongs to a Service"
        return self._control

    def close(self) -> None:
        """End everything that belongs to it. Idempotent."""

    def _state(self) -> str:
        return ", draining" if self.is_draining else ""


class StreamBackend(Backend):
    """A TCP server in the proxy's thread."""

    is_own = True

    def __init__(
        self, name: str, thread: LoopThread, handler: StreamHandler, host: str = _HOST
    ) -> None:
        self._thread = thread
        self._handler = handler
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        super().__init__(name, SocketAddress(host, 0))
        self.start()

    def start(self) -> None:
        """Part of Backend."""
        if self._server is None:
            self._server = self._thread.call(
                asyncio.start_server(self._serve, *self.address, reuse_address=True)
            )
            self.address = SocketAddress(*self._server.sockets[0].getsockname()[:2])

    def stop(self) -> None:
        """Part of Backend."""
        server, self._server = self._server, None
        if server is not None:
            self._thread.do(lambda: self._reset(server))

    def close(self) -> None:
        """Part of Backend."""
        self.stop()

    def _reset(self, server: asyncio.Server) -> None:
        server.close()
        for writer in self._writers:
            reset(writer)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            await self._handler(reader, writer)
        except ConnectionError:
            pass
        finally:
            self._writers.discard(writer)
            writer.close()

    def _state(self) -> str:
        return super()._state() or ("" if self._server else ", stopped")


class UdpBackend(Backend):
    """A UDP server in the proxy's thread that answers ``name: `` and the datagram."""

    is_own = True

    def __init__(self, name: str, thread: LoopThread, host: str = _HOST) -> None:
        self._thread = thread
        self._transport: asyncio.DatagramTransport | None = None
        super().__init__(name, SocketAddress(host, 0))
        self.start()

    def start(self) -> None:
        """Part of Backend."""
        if self._transport is None:
            self._transport = self._thread.call(self._open())
            self.address = SocketAddress(*self._transport.get_extra_info("sockname")[:2])

    def stop(self) -> None:
        """Part of Backend."""
        transport, self._transport = self._transport, None
        if transport is not None:
            self._thread.do(transport.abort)

    def close(self) -> None:
        """Part of Backend."""
        self.stop()

    async def _open(self) -> asyncio.DatagramTransport:
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(
            lambda: _Answering(self.name), local_addr=self.address
        )
        return transport

    def _state(self) -> str:
        return super()._state() or ("" if self._transport else ", stopped")


class _Answering(asyncio.DatagramProtocol):
    def __init__(self, name: str) -> None:
        self._name = name.encode()
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self._transport.sendto(self._name + b": " + data, addr)


class CommandBackend(Backend):
    """A program; ``{port}`` in its arguments, and PORT in its environment, is where it listens."""

    is_own = True

    def __init__(self, name: str, command: Sequence[str]) -> None:
        with socket.create_server((_HOST, 0)) as probe:
            address = SocketAddress(*probe.getsockname()[:2])
        self._command = [word.replace("{port}", str(address.port)) for word in command]
        self._process: subprocess.Popen[bytes] | None = None
        super().__init__(name, address)
        self.start()

    def start(self) -> None:
        """Part of Backend; returns when the program accepts connections.

        Raises:
            SandboxError: It can't be started, ends, or doesn't listen in time.
        """
        if self._process is not None:
            return
        environment = {**os.environ, "PORT": str(self.address.port)}
        try:
            # A session of its own, so that a signal reaches its children, too.
            self._process = subprocess.Popen(
                self._command, env=environment, stdin=subprocess.DEVNULL, start_new_session=True
            )
        except OSError as exc:
            raise SandboxError(f"cannot start backend {self.name}: {exc}") from exc
        try:
            self._wait()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Part of Backend."""
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(_COMMAND_ENDS_S)

    def close(self) -> None:
        """Part of Backend."""
        self.stop()

    def _wait(self) -> None:
        assert self._process is not None, "it was started"
        deadline, pause = time.monotonic() + _COMMAND_READY_S, threading.Event()
        while time.monotonic() < deadline:
            status = self._process.poll()
            if status is not None:
                what = f"backend {self.name} ended with status {status}: {self._command}"
                raise SandboxError(what)
            with contextlib.suppress(OSError), socket.create_connection(self.address, timeout=1):
                return
            pause.wait(_RETRY_S)
        raise SandboxError(
            f"backend {self.name} does not listen at {self.address} after {_COMMAND_READY_S:.0f} s",
            hint="its port is {port} in its arguments, or PORT in its environment",
        )

    def _state(self) -> str:
        return super()._state() or ("" if self._process else ", stopped")


def make_backend(
    like: BackendLike | None, *, name: str, protocol: str, thread: LoopThread, host: str = _HOST
) -> Backend:
    """Return a backend, started.

    Args:
        like: What it is made of; None: an HTTP or UDP server that answers its name.
        host: The address at which servers of this process listen.

    Raises:
        TypeError: Nothing can be made of it.
        ValueError: It is a text that isn't an address.
        SandboxError: A program doesn't start.
    """
    if like is None and protocol == "UDP":
        return UdpBackend(name, thread, host)
    if like is None:
        like = http(f"{name}\n")
    if isinstance(like, str | tuple):
        return Backend(name, read_endpoint(like))
    if callable(like):
        if protocol == "UDP":
            raise TypeError("a function can't be a UDP backend: backends=2 makes two that answer")
        return StreamBackend(name, thread, _stream_handler(like), host)
    if isinstance(like, list):
        return CommandBackend(name, like)
    raise TypeError(f"backend {like!r}: expected a function, a command, an address or a number")


def _stream_handler(function: Callable[..., Any]) -> StreamHandler:
    """Return a function of two arguments as it is; one of one argument answers HTTP requests."""
    if len(inspect.signature(function).parameters) == 2:
        return function

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await serve_http(reader, writer, function)

    return serve


__all__ = [
    "Backend",
    "BackendLike",
    "CommandBackend",
    "HttpAnswer",
    "HttpRequest",
    "StreamBackend",
    "UdpBackend",
    "echo",
    "http",
    "make_backend",
]
