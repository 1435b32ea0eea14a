"""A server on loopback that forwards connections to one endpoint, with faults.

Rule 1: unless a fault requires otherwise, it accepts a client only to forward it: if the endpoint
refuses, the client is reset.
Rule 2: the faults ``refuse``, ``silent`` and ``half_open`` are modes of the listening socket.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import random
import socket
from collections.abc import Sequence
from functools import partial

from userspace_proxy.kernel.socket_options import reset
from userspace_proxy.model import SocketAddress

from ..connections import Connections, connect_ex
from .detour_stream import ClientSide, FaultyStream
from .fault_types import FAIL_FIRST, FirstResets
from .toxics import DOWNSTREAM, UPSTREAM, NamedToxic, ResetPeer

_HOST = "127.0.0.1"


class Mode(enum.StrEnum):
    """The treatment of clients that connect."""

    PASS = "pass"
    """Clients' connections are forwarded through the toxics."""
    REFUSE = "refuse"
    """Clients are refused, because nothing listens."""
    SILENT = "silent"
    """Clients' SYNs get no answer."""
    HALF_OPEN = "half_open"
    """Clients are accepted, but no byte is read or sent."""


class FaultServer:
    """A substitute for one endpoint, in the running event loop.

    Args:
        upstream: The endpoint.
        seed: Makes jitter, sizes and toxicity reproducible. The draws for a connection depend only
            on the seed and the number of connections accepted before.
    """

    def __init__(self, upstream: SocketAddress, *, seed: int = 0) -> None:
        self.upstream = upstream
        self.toxics: tuple[NamedToxic, ...] = ()
        """The toxics, in the order in which they are applied; see :meth:`set_toxics`."""
        self.first_resets = FirstResets(0)
        """The number of next clients to reset, and when to reset them."""
        self._mode = Mode.PASS
        self._chance = random.Random(seed)
        self._loop = asyncio.get_running_loop()
        self._streams: set[FaultyStream] = set()
        self._connections = Connections()
        self._fillers: list[socket.socket] = []
        self._listener = _bound(SocketAddress(_HOST, 0))
        self.address = SocketAddress(*self._listener.getsockname()[:2])
        """The address that is dialled instead of the endpoint."""
        self._listen()

    @property
    def mode(self) -> Mode:
        """The treatment of new clients."""
        return self._mode

    def set_mode(self, mode: Mode) -> None:
        """Change the treatment of new clients; open connections continue."""
        if mode is not self._mode:
            self._close_listener()
            self._mode = mode
            self._listen()

    def set_toxics(self, toxics: Sequence[NamedToxic]) -> None:
        """Replace the toxics of new and open connections."""
        self.toxics = tuple(toxics)
        for stream in self._streams:
            stream.change()

    def close(self) -> None:
        """Refuse clients and reset open connections. Idempotent."""
        self._close_listener()
        self.drop_connections()

    def drop_connections(self) -> None:
        """Reset the open connections."""
        self._connections.reset()

    def _listen(self) -> None:
        if self._listener.fileno() < 0:
            self._listener = _bound(self.address)
        if self._mode is Mode.REFUSE:
            # The socket is bound but doesn't listen: the kernel refuses connections, and no other
            # program can bind the port.
            return
        if self._mode is Mode.SILENT:
            self._listener.listen(0)
            self._fill()
            return
        self._listener.listen(128)
        self._loop.add_reader(self._listener.fileno(), self._accept)

    def _fill(self) -> None:
        """Fill the listener's queue, so that further SYNs aren't answered."""
        for _ in range(2):
            filler = socket.socket()
            filler.setblocking(False)
            connect_ex(filler, self.address)
            self._fillers.append(filler)

    def _close_listener(self) -> None:
        if self._listener.fileno() >= 0:
            self._loop.remove_reader(self._listener.fileno())
            self._listener.close()
        while self._fillers:
            self._fillers.pop().close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            client, _ = self._listener.accept()
            chance = random.Random(self._chance.random())
            self._connections.serve(client, partial(self._serve, chance=chance))

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, chance: random.Random
    ) -> None:
        first = self.first_resets
        if first.count:
            self.first_resets = FirstResets(first.count - 1, first.at_connect)
            # The toxic applies upstream, so the endpoint doesn't receive the request.
            toxic = NamedToxic(FAIL_FIRST, UPSTREAM, ResetPeer(at_connect=first.at_connect))
            await self._pass_on(reader, writer, chance, [toxic])
        elif self._mode is Mode.HALF_OPEN:
            await asyncio.Event().wait()
        else:
            await self._pass_on(reader, writer, chance)

    async def _pass_on(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        chance: random.Random,
        own: Sequence[NamedToxic] = (),
    ) -> None:
        """Forward a connection; ``own`` toxics are applied before the endpoint's toxics."""
        try:
            other_reader, other_writer = await asyncio.open_connection(*self.upstream)
        except OSError:
            reset(writer)
            return

        def abort(as_reset: bool) -> None:
            for each in (writer, other_writer):
                if as_reset:
                    reset(each)
                else:
                    each.close()

        def make(
            stream: str, source: asyncio.StreamReader, sink: asyncio.StreamWriter
        ) -> FaultyStream:
            return FaultyStream(
                source,
                sink,
                toxics=lambda: [t for t in (*own, *self.toxics) if t.stream == stream],
                client=client,
                abort=abort,
                chance=random.Random(chance.random()),
            )

        client = ClientSide(reader)
        streams = [make(UPSTREAM, reader, other_writer), make(DOWNSTREAM, other_reader, writer)]
        client.streams = streams
        self._streams.update(streams)
        try:
            with self._connections.keep(other_writer):
                async with asyncio.TaskGroup() as tasks:
                    for stream in streams:
                        tasks.create_task(stream.run())
        finally:
            self._streams.difference_update(streams)


def _bound(address: SocketAddress) -> socket.socket:
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setblocking(False)
    sock.bind(address)
    return sock
