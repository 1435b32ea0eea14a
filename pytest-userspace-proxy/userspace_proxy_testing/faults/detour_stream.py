"""One direction of a connection, with its toxics.

    source ──read──▶ queue of chunks with the time of their arrival ──toxics──▶ sink

Rule 1: a chunk's delay starts at its arrival, so latency doesn't lower the rate.
Rule 2: toxics may change while a connection is open: new resets and timeouts apply at once, other
new toxics from the next chunk on, and waits that old toxics caused end.
Rule 3: toxicity is drawn once per connection and toxic, independent of other draws.
Rule 4: unless a reset is configured for the connect, it waits for the client's first byte or FIN,
so that even a slow client sees a reset, not a failed connect. Until then, bytes are forwarded.

Unlike the data plane's relay (``dataplane.relay``), which splices and never holds back bytes that
it may send, this module delays, cuts or drops each chunk, and is only fast enough for tests.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from .toxics import (
    Bandwidth,
    Latency,
    LimitData,
    NamedToxic,
    ResetPeer,
    Slicer,
    SlowClose,
    Timeout,
)

_CHUNK_BYTES = 32 * 1024
# The maximum number of queued chunks, as in toxiproxy's latency toxic.
_CHUNKS = 1024
# The duration of a part in seconds: at a low rate, toxiproxy sends parts of a tenth of a second.
_PART_S = 0.1


@dataclass(frozen=True, slots=True)
class _Chunk:
    data: bytes
    """The bytes; empty at the end of the stream."""
    arrived: float


class ClientSide:
    """A connection's client, and whether it has sent a byte or its FIN.

    Args:
        source: The stream from the client.
    """

    def __init__(self, source: asyncio.StreamReader) -> None:
        self.has_begun = False
        self._source = source
        self.streams: Sequence[FaultyStream] = ()
        """Both directions, which re-evaluate their toxics once the client has begun."""

    def note_read(self, source: asyncio.StreamReader) -> None:
        """Record a read; only the first from the client's stream has an effect."""
        if source is self._source and not self.has_begun:
            self.has_begun = True
            for stream in self.streams:
                stream.note_client()


class FaultyStream:
    """One direction of a connection; :meth:`run` ends when all is forwarded or the connection ends.

    Args:
        toxics: Returns this direction's current toxics.
        client: The state of the connection's client, which both directions share.
        abort: Ends the connection; with True, by a reset.
    """

    def __init__(
        self,
        source: asyncio.StreamReader,
        sink: asyncio.StreamWriter,
        *,
        toxics: Callable[[], Sequence[NamedToxic]],
        client: ClientSide,
        abort: Callable[[bool], None],
        chance: random.Random,
    ) -> None:
        self._source = source
        self._sink = sink
        self._toxics = toxics
        self._client = client
        self._abort = abort
        self._chance = chance
        # A separate generator, because jitter makes a number of draws that depends on timing.
        self._share = random.Random(chance.random())
        self._drawn: dict[NamedToxic, bool] = {}
        self._queue: asyncio.Queue[_Chunk | None] = asyncio.Queue(_CHUNKS)
        self._changed = asyncio.Event()
        self._clock = asyncio.get_running_loop().time
        self._passed = 0
        """Bytes forwarded, for ``limit_data``."""
        self._is_over = False
        """Whether the source has ended."""

    async def run(self) -> None:
        """Forward bytes until the stream or the connection ends."""
        async with asyncio.TaskGroup() as tasks:
            reading = tasks.create_task(self._read())
            try:
                await self._write()
            finally:
                reading.cancel()

    def change(self) -> None:
        """Re-evaluate the toxics, which have changed."""
        self._changed.set()
        self._changed = asyncio.Event()
        # Wake an idle connection, which wouldn't notice a reset otherwise.
        with contextlib.suppress(asyncio.QueueFull):
            self._queue.put_nowait(None)

    def note_client(self) -> None:
        """Re-evaluate the toxics if there is a reset, which may await the client's first byte."""
        if any(isinstance(toxic, ResetPeer) for toxic in self._active()):
            self.change()

    async def _read(self) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await self._source.read(_CHUNK_BYTES):
                self._client.note_read(self._source)
                if not self._drops():
                    await self._queue.put(_Chunk(data, self._clock()))
            self._client.note_read(self._source)
            self._is_over = True
            if self._drops():
                self.change()
            else:
                await self._queue.put(_Chunk(b"", self._clock()))
            return
        self._abort(True)

    def _drops(self) -> bool:
        """Return whether bytes that arrive are dropped."""
        return any(isinstance(toxic, Timeout) for toxic in self._active())

    async def _write(self) -> None:
        with contextlib.suppress(ConnectionError):
            while await self._may_go_on():
                chunk = await self._queue.get()
                if self._ends():
                    # A toxic now ends the connection, so the chunk is dropped.
                    continue
                if chunk is not None and not await (
                    self._pass(chunk) if chunk.data else self._end()
                ):
                    return

    async def _may_go_on(self) -> bool:
        """Wait while a toxic prevents forwarding; return False once it has ended the connection."""
        while True:
            ends = self._ends()
            if not ends:
                if self._is_over and self._queue.empty():
                    # The end of the stream was dropped, too, so add it again.
                    self._queue.put_nowait(_Chunk(b"", self._clock()))
                return True
            if self._is_over and self._drops():
                # Close the connection, as toxiproxy does: otherwise it would stay open after its
                # client has gone.
                self._abort(False)
                return False
            # Also drop chunks that wait for room in the queue.
            self._lose()
            first = min(ends, key=_ends_after_s)
            if not await self._wait(_ends_after_s(first)):
                self._abort(isinstance(first, ResetPeer))
                return False
            self._lose()

    def _ends(self) -> list[ResetPeer | Timeout]:
        """Return the toxics that stop the bytes, and end the connection at once, later or never."""
        return [
            toxic
            for toxic in self._active()
            if isinstance(toxic, Timeout)
            or (isinstance(toxic, ResetPeer) and (toxic.at_connect or self._client.has_begun))
        ]

    def _lose(self) -> None:
        """Drop everything that has arrived."""
        while not self._queue.empty():
            self._queue.get_nowait()

    async def _pass(self, chunk: _Chunk) -> bool:
        """Forward a chunk; return whether the connection continues."""
        due, toxics = chunk.arrived, self._active()
        for toxic in toxics:
            if isinstance(toxic, Latency):
                jitter = self._chance.uniform(-toxic.jitter, toxic.jitter)
                due += max(0.0, toxic.latency + jitter) / 1000
        await self._wait(due - self._clock())
        for piece, pause_s in self._pieces(chunk.data, toxics):
            await self._wait(pause_s)
            if not await self._send_slowly(piece, toxics):
                return False
        return True

    async def _send_slowly(self, piece: bytes, toxics: Sequence[object]) -> bool:
        """Send a piece at the lowest rate, at once if toxics change; return whether to continue."""
        rates = [toxic.rate * 1000 for toxic in toxics if isinstance(toxic, Bandwidth)]
        rate, left = min(rates, default=None), piece
        while rate is not None and left:
            part, left = left[: int(rate * _PART_S)], left[int(rate * _PART_S) :]
            if await self._wait(len(part) / rate if rate else math.inf):
                return await self._send(part + left, toxics)
            if not await self._send(part, toxics):
                return False
        return rate is not None or await self._send(piece, toxics)

    async def _send(self, piece: bytes, toxics: Sequence[object]) -> bool:
        limits = [toxic.bytes for toxic in toxics if isinstance(toxic, LimitData)]
        left = min(limits, default=None)
        if left is not None:
            piece = piece[: max(0, left - self._passed)]
        self._passed += len(piece)
        if self._sink.is_closing():
            return False
        self._sink.write(piece)
        await self._sink.drain()
        if left is not None and self._passed >= left:
            self._abort(False)
            return False
        return True

    async def _end(self) -> bool:
        for toxic in self._active():
            if isinstance(toxic, SlowClose):
                await self._wait(toxic.delay / 1000)
        # Check first: if the other direction has reset the connection, uvloop raises here, unlike
        # asyncio.
        if self._sink.can_write_eof() and not self._sink.is_closing():
            self._sink.write_eof()
        return False

    def _pieces(self, data: bytes, toxics: Sequence[object]) -> Iterator[tuple[bytes, float]]:
        """Yield a slicer's pieces, or else all data, each with the seconds to wait before it."""
        slicer = next((toxic for toxic in toxics if isinstance(toxic, Slicer)), None)
        if slicer is None or not slicer.average_size:
            yield data, 0.0
            return
        at, pause_s = 0, 0.0
        while at < len(data):
            variation = min(slicer.size_variation, slicer.average_size - 1)
            size = slicer.average_size + self._chance.randint(-variation, variation)
            yield data[at : at + size], pause_s
            at, pause_s = at + size, slicer.delay / 1_000_000

    async def _wait(self, seconds: float) -> bool:
        """Wait for finite or infinite seconds; return True early if toxics change, else False."""
        if seconds <= 0:
            return False
        try:
            await asyncio.wait_for(self._changed.wait(), None if seconds == math.inf else seconds)
        except TimeoutError:
            return False
        return True

    def _active(self) -> list[object]:
        """Return the toxics that affect this connection now."""
        return [named.toxic for named in self._toxics() if self._is_drawn(named)]

    def _is_drawn(self, named: NamedToxic) -> bool:
        if named not in self._drawn:
            self._drawn[named] = self._share.random() < named.toxicity
        return self._drawn[named]


def _ends_after_s(toxic: ResetPeer | Timeout) -> float:
    """Return the seconds after which a toxic ends a connection."""
    is_forever = isinstance(toxic, Timeout) and not toxic.timeout
    return math.inf if is_forever else toxic.timeout / 1000
