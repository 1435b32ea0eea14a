"""Backends of a test's Services: in the test's process, as a command, or elsewhere.

``2``: HTTP servers that answer with their name; with UDP, servers that answer name and datagram
``[echo, http("hello")]``: functions of this module
``[handler]``: a function of the test that receives an HTTP request, or a reader and a writer; a
coroutine function runs in the proxy's event loop, any other function in a thread, so it may block
``[ReadyCommand(["postgres", …], ready=…)]``: a command that listens before it is ready
``["127.0.0.1:8081"]``: an address that another program serves
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from userspace_proxy.clocks import Clocks
from userspace_proxy.embedding.arguments import read_endpoint
from userspace_proxy.embedding.loop_thread import LoopThread
from userspace_proxy.linux import require_own_files
from userspace_proxy.log_fields import FieldLogger
from userspace_proxy.model import SocketAddress

from .backend import Backend, BackendError
from .backend_arguments import (
    BackendLike,
    ReadyCommand,
    StreamHandler,
    as_command,
    check_backend,
    stream_handler,
)
from .command_output import CommandOutput
from .connections import Connections, connect
from .http_serving import HttpAnswer, HttpHandler, HttpRequest, HttpServer
from .places import BackendPlace
from .ports import claim_port
from .sandbox.environment import without_proxies

_log = FieldLogger("userspace_proxy_testing")

_COMMAND_READY_S = 20.0
_COMMAND_ENDS_S = 5.0
_RETRY_S = 0.01
# The backlog of listeners: the default of asyncio's servers.
_BACKLOG = 100


def http(answer: HttpAnswer) -> HttpHandler:
    """Return a function for ``backends`` that sends this answer to each HTTP request."""

    async def give(_request: HttpRequest) -> HttpAnswer:
        return answer

    return give


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send received bytes back, and a FIN after the client's; a function for ``backends``."""
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()


@contextlib.contextmanager
def _closing_on_error(sock: socket.socket) -> Iterator[None]:
    try:
        yield
    except BaseException:
        sock.close()
        raise


class StreamBackend(Backend):
    """A TCP server in the proxy's thread; its coroutines are cancelled when it stops."""

    is_own = True

    def __init__(
        self, name: str, thread: LoopThread, handler: StreamHandler, place: BackendPlace
    ) -> None:
        self._thread = thread
        self._handler = handler
        self.requests = handler.seen if isinstance(handler, HttpServer) else ()
        self._listener: socket.socket | None = None
        self._connections = Connections()
        super().__init__(name, place.address, place)
        self.start()

    def start(self) -> None:
        self._check_open()
        if self._listener is None:
            self._free()
            sock = self._place.bind(socket.SOCK_STREAM, self.address)
            self.address = SocketAddress(*sock.getsockname()[:2])
            with _closing_on_error(sock):
                self._thread.do(lambda: self._listen(sock))
            self._listener = sock

    def stop(self) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            self._thread.do(lambda: self._reset(listener))
            self._reserve()

    def _listen(self, listener: socket.socket) -> None:
        listener.setblocking(False)
        listener.listen(_BACKLOG)
        asyncio.get_running_loop().add_reader(listener.fileno(), self._accept, listener)

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            self._connections.serve(listener.accept()[0], self._serve)

    def _reset(self, listener: socket.socket) -> None:
        asyncio.get_running_loop().remove_reader(listener.fileno())
        listener.close()
        self._connections.reset()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._handler(reader, writer)
        except (ConnectionError, asyncio.CancelledError):
            # The client has closed the connection, or the backend was stopped; neither is an error.
            pass
        except GeneratorExit:
            raise
        except BaseException:  # noqa: BLE001 - the test's own code, which may exit, or fail the test
            _log.exception(
                "%(backend)s: backend function raised an exception", extra={"backend": self.name}
            )

    def _is_running(self) -> bool:
        return self._listener is not None


class UdpBackend(Backend):
    """A UDP server in the proxy's thread that answers ``name: `` and the datagram."""

    is_own = True

    def __init__(self, name: str, thread: LoopThread, place: BackendPlace) -> None:
        self._thread = thread
        self._transport: asyncio.DatagramTransport | None = None
        super().__init__(name, place.address, place)
        self.start()

    def start(self) -> None:
        self._check_open()
        if self._transport is None:
            sock = self._place.bind(socket.SOCK_DGRAM, self.address)
            self.address = SocketAddress(*sock.getsockname()[:2])
            with _closing_on_error(sock):
                self._transport = self._thread.call(self._open(sock))

    def stop(self) -> None:
        transport, self._transport = self._transport, None
        if transport is not None:
            self._thread.do(transport.abort)

    async def _open(self, sock: socket.socket) -> asyncio.DatagramTransport:
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(lambda: _Answering(self.name), sock=sock)
        return transport

    def _is_running(self) -> bool:
        return self._transport is not None


class _Answering(asyncio.DatagramProtocol):
    def __init__(self, name: str) -> None:
        self._name = name.encode()
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self._transport.sendto(self._name + b": " + data, addr)


class CommandBackend(Backend):
    """A program whose arguments (``{host}``, ``{port}``) and environment contain its address.

    The variables are HOST and PORT. The program ends no later than this process; if a signal kills
    this process, see :meth:`.BackendPlace.command`.
    """

    is_own = True

    def __init__(self, name: str, command: ReadyCommand, place: BackendPlace) -> None:
        address = place.address
        self._ready = command.ready
        if callable(self._ready) and place.pod is not None:
            what = f"backend {name}: ready: a function of the test can't reach a pod"
            raise ValueError(f"{what}: give a text of the command's output")
        self._claim: socket.socket | None = None
        if not address.port:
            port, self._claim = claim_port(place)
            address = SocketAddress(address.ip, port)
        values = {"{host}": address.ip, "{port}": str(address.port)}
        self._command = [_replace(word, values) for word in command.words]
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0
        super().__init__(name, address, place)
        try:
            self.start()
        except BaseException:
            self._give_up()
            raise

    def start(self) -> None:
        """Start the program unless it runs; return once it accepts connections and is ready.

        Raises:
            BackendError, SandboxError: The program can't be started, exits, or isn't ready in time.
        """
        self._check_open()
        if self._is_running():
            return
        require_own_files(f"cannot start backend {self.name}")
        # Clean up first: the previous program may have exited by itself.
        self.stop()
        self._free()
        where = {"HOST": self.address.ip, "PORT": str(self.address.port)}
        # HTTP proxies can't be reached from a pod, so remove their variables there.
        outer = os.environ if self._place.pod is None else without_proxies()
        try:
            # The program gets its own session, so that SIGKILL also reaches its children.
            self._process = subprocess.Popen(
                self._place.command(self._command),
                env={**outer, **where},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if isinstance(self._ready, str) else None,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as exc:
            raise BackendError(f"cannot start backend {self.name}: {exc}") from exc
        # The test's program may exit without closing the proxy: then stop the backend, but not at
        # the exit of a child that the program forked.
        self._owner = os.getpid()
        atexit.register(self._stop_at_exit)
        awaited = self._ready if isinstance(self._ready, str) else ""
        outputs = [
            CommandOutput(pipe, descriptor, awaited)
            for descriptor, pipe in ((2, self._process.stderr), (1, self._process.stdout))
            if pipe is not None
        ]
        try:
            self._wait(outputs)
        except BaseException as exc:
            self.stop()
            self._free()
            if isinstance(exc, BackendError) and (text := outputs[0].text()):
                raise BackendError(f"{exc.message}; its stderr:\n{text}\n", hint=exc.hint) from None
            raise

    def _stop_at_exit(self) -> None:
        if os.getpid() == self._owner:
            self.stop()

    def close(self) -> None:
        super().close()
        self._give_up()

    def stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            atexit.unregister(self._stop_at_exit)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(_COMMAND_ENDS_S)
            self._reserve()

    def _wait(self, outputs: Sequence[CommandOutput]) -> None:
        assert self._process is not None, "it was started"
        deadline, pause = Clocks.monotonic() + _COMMAND_READY_S, threading.Event()
        listens = False
        while True:
            # Don't dial again after a success: unaccepted connections would fill the backlog.
            refusal = "" if listens else self._dial()
            listens = not refusal
            status, cause = self._process.poll(), refusal or self._lack(outputs)
            if status is not None:
                raise BackendError(
                    f"backend {self.name} ended with status {status}{cause and f': {cause}'}: "
                    f"{self._command}"
                )
            if not cause:
                return
            if Clocks.monotonic() >= deadline:
                raise BackendError(
                    f"backend {self.name} is not ready after {_COMMAND_READY_S:.0f} s: {cause}",
                    hint=""
                    if listens
                    else "its address is {host} and {port} in its arguments, or HOST and PORT in "
                    "its environment",
                )
            pause.wait(_RETRY_S)

    def _dial(self) -> str:
        """Return why a connection to the program fails; empty if it succeeds."""
        try:
            with self._place.open_socket(socket.SOCK_STREAM) as client:
                client.settimeout(1)
                connect(client, self.address)
        except OSError as exc:
            return f"cannot connect to {self.address}: {exc.strerror or exc}"
        return ""

    def _lack(self, outputs: Sequence[CommandOutput]) -> str:
        """Return why the program isn't ready although it listens; empty if it is ready."""
        if isinstance(self._ready, str):
            has_come = any(output.has_come.is_set() for output in outputs)
            # testcontainers searches for patterns, so users may expect the same here.
            is_pattern = any(sign in self._ready for sign in (".*", ".+", "\\d", "\\s", "\\w"))
            plain = ", a text and no pattern" if is_pattern else ""
            return "" if has_come else f"no line of its output has {self._ready!r}{plain}"
        if self._ready is not None:
            try:
                if self._ready(self.address) is False:
                    return "ready returns False"
            except Exception as exc:  # noqa: BLE001 - the test's own code, whose error is the reason
                return f"ready fails: {type(exc).__name__}: {exc}"
        return ""

    def _give_up(self) -> None:
        if self._claim is not None:
            self._claim.close()

    def _is_running(self) -> bool:
        if self._process is None:
            return False
        # Don't reap the process here: its process group ID stays reserved until it is reaped.
        how = os.WEXITED | os.WNOHANG | os.WNOWAIT
        with contextlib.suppress(ChildProcessError):
            return os.waitid(os.P_PID, self._process.pid, how) is None
        return False


def make_backend(
    like: BackendLike | None,
    *,
    name: str,
    protocol: str,
    thread: LoopThread,
    find_place: Callable[[], BackendPlace] = BackendPlace,
) -> Backend:
    """Return a started backend.

    Args:
        like: The kind of backend; None for an HTTP or UDP server that answers with its name.
        find_place: Returns the place where the backend listens; unused for an address.

    Raises:
        TypeError: The kind is invalid.
        ValueError: An address is invalid, or ``ready`` of a program in a pod is a function.
        OSError, PlatformError: The address isn't available, or IPv6 is disabled.
        BackendError, SandboxError: A program doesn't start, or no port is free for it.
    """
    check_backend(like, protocol)
    if isinstance(like, str | tuple):
        return Backend(name, read_endpoint(like), BackendPlace())
    place = find_place()
    try:
        if (command := as_command(like)) is not None:
            return CommandBackend(name, command, place)
        if like is None and protocol == "UDP":
            return UdpBackend(name, thread, place)
        function = like if callable(like) else http(f"{name}\n")
        return StreamBackend(name, thread, stream_handler(function), place)
    except BaseException:
        place.leave()
        raise


def _replace(word: str, values: Mapping[str, str]) -> str:
    for placeholder, value in values.items():
        word = word.replace(placeholder, value)
    return word


__all__ = [
    "BackendError",
    "BackendLike",
    "CommandBackend",
    "HttpAnswer",
    "HttpRequest",
    "ReadyCommand",
    "StreamBackend",
    "UdpBackend",
    "echo",
    "http",
    "make_backend",
]
