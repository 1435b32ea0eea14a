"""Serves DNS on one address, over UDP and TCP.

Rule 1: a query for cluster names is answered immediately, unless it needs slow work (``names``).
Rule 2: forwarded and slow queries are bounded: beyond the limit, datagrams are dropped.
Rule 3: connections are bounded: at the limit, the client with the most connections loses one of its
own, so no client can block the forwarded queries of other clients.
Rule 4: a connection is closed if its client sends nothing for a while, or doesn't read an answer.
Rule 5: over TCP, where answers are large, each iteration of the event loop builds one answer, for
one connection after the other.
Rule 6: only the header of a message that is too long for a query is received, and a connection
whose message was rejected is closed after the answer.

Source: RFC 7766 for TCP.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import struct
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from ..errors import ListenError
from ..kernel.port_holders import holders_at
from ..loops import close_server
from ..model import Protocol, SocketAddress
from .dns_wire import HEADER, QUERY_BYTES_MAX

Later = Callable[[], Awaitable[bytes | None]]
"""Fetches an answer from another server, or after slow lookups."""


class LastAnswer(NamedTuple):
    """The answer to an invalid query; the connection is closed after it."""

    wire: bytes


Answer = bytes | LastAnswer | Later | None
"""The answer to a message; None if the message isn't answered."""
Respond = Callable[..., Answer]
""":meth:`.Responder.respond`, with its parameters: a message and ``is_udp``."""

_Sender = tuple[str | Any, int]
_Asked = tuple[Later, _Sender, asyncio.DatagramTransport]

ELSEWHERE_MAX = 512
"""The maximum number of concurrently forwarded or slow queries; as many more queries wait."""
_CONNECTIONS_MAX = 128
_IDLE_S = 10.0
_BACKLOG = 128
# The number of attempts to bind: the port that the kernel chose for UDP may be taken for TCP.
_TRIES = 16
_LENGTH = struct.Struct(">H")

_FLAG = "--dns-bind-address"


class DnsServer:
    """A DNS server; :meth:`run` must run between :meth:`open` and :meth:`close`."""

    def __init__(self, respond: Respond) -> None:
        self._respond = respond
        self._stack = contextlib.AsyncExitStack()
        self._waiting: asyncio.Queue[_Asked] = asyncio.Queue(ELSEWHERE_MAX)
        self._connections: dict[asyncio.Task[Any], str] = {}
        """The clients of connections; the least recently answered connection is first."""
        self._answering: set[asyncio.Task[Any]] = set()
        self._turn = asyncio.Lock()

    async def open(self, address: SocketAddress) -> SocketAddress:
        """Start listening, and return the address; for port 0, the kernel chooses a free port.

        Raises:
            ListenError: The address isn't available.
        """
        try:
            udp, tcp = _bind(address)
        except OSError as exc:
            # Search in a thread, because the search reads the descriptors of all processes.
            holder = await asyncio.to_thread(_holder_of, address, exc)
            raise _cannot_serve(address, exc, holder) from exc
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(
            lambda: _Receiver(self._answer), sock=udp
        )
        self._stack.callback(transport.close)
        server = await asyncio.start_server(self._serve, sock=tcp, backlog=_BACKLOG)
        self._stack.push_async_callback(close_server, server)
        ip, port = udp.getsockname()[:2]
        return SocketAddress(ip, port)

    async def run(self) -> None:
        """Answer forwarded and slow queries that arrived by UDP, until cancelled."""
        free = asyncio.Semaphore(ELSEWHERE_MAX)
        async with asyncio.TaskGroup() as group:
            while True:
                await free.acquire()
                asked = await self._waiting.get()
                task = group.create_task(self._answer_later(*asked))
                task.add_done_callback(lambda _: free.release())

    async def close(self) -> None:
        """Stop answering. Idempotent."""
        await self._stack.aclose()
        connections = tuple(self._connections)
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)

    def _answer(self, data: bytes, sender: _Sender, transport: asyncio.DatagramTransport) -> None:
        answer = self._respond(data, is_udp=True)
        if isinstance(answer, LastAnswer):
            answer = answer.wire
        if isinstance(answer, bytes):
            transport.sendto(answer, sender)
        elif answer is not None:
            with contextlib.suppress(asyncio.QueueFull):
                self._waiting.put_nowait((answer, sender, transport))

    async def _answer_later(
        self, later: Later, sender: _Sender, transport: asyncio.DatagramTransport
    ) -> None:
        answer = await later()
        if answer is not None:
            transport.sendto(answer, sender)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the messages of one connection, one after the other."""
        task = asyncio.current_task()
        assert task is not None
        client = (writer.get_extra_info("peername") or ("",))[0]
        self._make_room(client)
        try:
            self._connections[task] = client
            # Cancellation is normal here, but Python 3.11 would log a traceback for it.
            with contextlib.suppress(OSError, EOFError, TimeoutError, asyncio.CancelledError):
                while await self._serve_one(task, reader, writer):
                    self._connections[task] = self._connections.pop(task)
                writer.close()
                async with asyncio.timeout(_IDLE_S):
                    await writer.wait_closed()
        finally:
            self._connections.pop(task, None)
            self._answering.discard(task)
            writer.transport.abort()

    async def _serve_one(
        self, task: asyncio.Task[Any], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        async with asyncio.timeout(_IDLE_S):
            try:
                (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
                # The header is enough to reject a message that is too long.
                size = length if length <= QUERY_BYTES_MAX else HEADER.size
                data = await reader.readexactly(size)
            except EOFError:
                return False
            self._answering.add(task)
            async with self._turn:
                answer = self._respond(data, is_udp=False)
                await _next_turn()
            is_last = isinstance(answer, LastAnswer)
            if isinstance(answer, LastAnswer):
                answer = answer.wire
            elif answer is not None and not isinstance(answer, bytes):
                answer = await answer()
            if answer is None:
                return False
            writer.write(_LENGTH.pack(len(answer)) + answer)
            await writer.drain()
            self._answering.discard(task)
        return not is_last

    def _make_room(self, client: str) -> None:
        """At the limit, close a connection as in Rule 3, preferably an idle connection."""
        if len(self._connections) < _CONNECTIONS_MAX:
            return
        counts = Counter(self._connections.values())
        most = max(counts.values())
        # If this client would have as many connections as that client, close one of its own.
        is_own = 0 < counts[client] >= most - 1
        candidates = [
            task
            for task, each in self._connections.items()
            if (each == client if is_own else counts[each] == most)
        ]
        ended = next((task for task in candidates if task not in self._answering), candidates[0])
        del self._connections[ended]
        ended.cancel()


async def _next_turn() -> None:
    """Wait until the next iteration of the event loop."""
    turn = asyncio.Event()
    asyncio.get_running_loop().call_soon(turn.set)
    await turn.wait()


class _Receiver(asyncio.DatagramProtocol):
    def __init__(
        self, received: Callable[[bytes, _Sender, asyncio.DatagramTransport], None]
    ) -> None:
        self._received = received
        self._transport: asyncio.DatagramTransport

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        self._transport = transport

    def datagram_received(self, data: bytes, addr: _Sender) -> None:
        self._received(data, addr, self._transport)


def check_address(address: SocketAddress, *, may_be_in_use: bool) -> None:
    """Check whether a server could listen at an address; ``may_be_in_use`` ignores EADDRINUSE.

    Raises:
        ListenError: The address isn't available.
    """
    try:
        socks = _bind(address)
    except OSError as exc:
        if may_be_in_use and exc.errno == errno.EADDRINUSE:
            return
        raise _cannot_serve(address, exc, _holder_of(address, exc)) from exc
    for sock in socks:
        sock.close()


def _bind(address: SocketAddress) -> tuple[socket.socket, socket.socket]:
    """Return a UDP socket and a listening TCP socket on the same port."""
    tries = 1 if address.port else _TRIES
    for left in reversed(range(tries)):
        try:
            return _bind_both(address)
        except OSError:
            if left == 0:
                raise
    raise AssertionError("unreachable")


def _holder_of(address: SocketAddress, exc: OSError) -> str:
    """Return the process that uses an address, over UDP or else over TCP.

    Returns ``another program`` if no process is found; empty without a socket, or for other errors.
    """
    if exc.errno == errno.EADDRINUSE:
        # Ignore a host name, which isn't an address.
        with contextlib.suppress(ValueError):
            for protocol in (Protocol.UDP, Protocol.TCP):
                for holder in holders_at([address], protocol).values():
                    return str(holder)
    return ""


def _cannot_serve(address: SocketAddress, exc: OSError, holder: str = "") -> ListenError:
    by = f" by {holder}" if holder else ""
    return ListenError(
        f"cannot serve DNS on {address}: {exc.strerror}{by}",
        hint=f"choose another address with {_FLAG}",
    )


def _bind_both(address: SocketAddress) -> tuple[socket.socket, socket.socket]:
    family = socket.AF_INET6 if ":" in address.ip else socket.AF_INET
    with contextlib.ExitStack() as stack:
        udp = stack.enter_context(socket.socket(family, socket.SOCK_DGRAM))
        tcp = stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        udp.bind(tuple(address))
        tcp.bind((address.ip, udp.getsockname()[1]))
        tcp.listen(_BACKLOG)
        udp.setblocking(False)
        tcp.setblocking(False)
        stack.pop_all()
    return udp, tcp
