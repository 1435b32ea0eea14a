"""Requests JSON from many agents at a time, within bounds of time, memory and load.

    ask ──pieces──▶ lines ──▶ lines.read… ──▶ Read

Rule 1: at most OPENING_MAX agents are being opened at a time; a slow agent gives up its slot and
continues, so it doesn't block others. No agent waits for the answer of another.
Rule 2: one long line is decoded at a time, within an Allowance, so memory is bounded whatever
agents answer.
Rule 3: a stream that sends more than a proxy would is closed. Reading its changes may take only a
share of the time; further changes stay in the socket's buffer.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from userspace_proxy.causes.cause import Cause
from userspace_proxy.clocks import Clocks
from userspace_proxy.errors import UserspaceProxyError
from userspace_proxy.facts import StatusFacts
from userspace_proxy.model.pods import NOT_ENDED, ContainerEnd
from userspace_proxy.sources.base import Pause, pause
from userspace_proxy.sources.kubernetes.client import ApiClient
from userspace_proxy.status.http_answer import Bounds, HttpAnswer, TooLarge, Unreadable, request_for

from ..port_forward import ForwardTarget, open_stream
from . import agent_causes
from .decoding import DECODED_PER_BYTE, LINE_BYTES, Allowance, most_of, read_change, read_whole_line

OPENING_MAX = 32
"""The maximum number of port-forwards being opened; each is also a connection to a kubelet."""
SLOW_S = 0.5
"""The seconds after which an agent without an answer gives up its slot."""

FIRST_GAP_S = 10.0
"""The interval of an agent's lines that is assumed before the first two lines, in seconds."""

ANSWER = Bounds()
_STREAM = Bounds(wire=0, body=0)
# The maximum number of lines and bytes per second; list elements count with their usual size. A
# proxy sends one line of changes per second, which takes 1 % of a core, and one line for each
# connection.
_CHANGES_PER_S = 4, 2 << 20
_LINES_PER_S = 10_000, 8 << 20
# An agent counts as lost after it has been silent for this multiple of its usual gap.
_GAPS = 4
# Lines up to this size are parsed in the event loop, because a thread would take longer.
_INLINE_BYTES = 64 << 10
_TEXT_MAX = 300
_How = TypeVar("_How")
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Read:
    """An agent's answer."""

    status: StatusFacts
    asked_at: float
    """Unix time of the request; for a change, of the arrival of the line before it."""
    answered_at: float
    """Unix time at which the answer's first byte, or the change's line, arrived."""


class Limits:
    """Limits that all calls share.

    Args:
        slow_s: See SLOW_S.
    """

    def __init__(self, slow_s: float = SLOW_S) -> None:
        self._slow_s = slow_s
        self._opening = asyncio.Semaphore(OPENING_MAX)
        self.parsing = asyncio.Lock()

    @contextlib.asynccontextmanager
    async def opening(self) -> AsyncIterator[None]:
        """Hold a slot for opening an agent's stream, for a limited time."""
        await self._opening.acquire()
        places = [self._opening.release]

        def give_up() -> None:
            if places:
                places.pop()()

        timer = asyncio.get_running_loop().call_later(self._slow_s, give_up)
        try:
            yield
        finally:
            timer.cancel()
            give_up()


class AgentCalls:
    """Sends requests to agents through port-forwards, and parses their answers.

    Args:
        client: The API server's client, open.
        unix: Returns Unix time.
    """

    def __init__(
        self,
        client: ApiClient,
        limits: Limits | None = None,
        *,
        unix: Callable[[], float] = Clocks.time,
        pause: Pause = pause,
    ) -> None:
        self._client = client
        self._limits = limits or Limits()
        self._unix = unix
        self._pause = pause

    async def body(self, to: ForwardTarget, path: str, bounds: Bounds = ANSWER) -> bytes:
        """Return an answer's body.

        Raises:
            PortForwardError, Unreadable, TooLarge, OtherStatus: No usable answer arrived.
        """
        async with self._asked(to, path, bounds) as pieces:
            return b"".join([piece async for piece in pieces])

    async def read(self, to: ForwardTarget, path: str, kind: type[_T], bounds: Bounds) -> _T:
        """Return an answer decoded as ``kind``.

        Raises:
            PortForwardError, Unreadable, TooLarge, OtherStatus: No usable answer arrived.
        """
        body = await self.body(to, path, bounds)
        return await self._parsed(Allowance(bounds.body).decode, body, kind)

    async def status(
        self, to: ForwardTarget, path: str, bounds: Bounds, waits: Callable[[bool], object]
    ) -> Read:
        """Request an agent's status once, not as a stream, and return it.

        Args:
            waits: Called with False once a slot is free and the request is about to be sent, and
                with True once the whole answer has arrived: parsing it may have to wait until other
                long answers are parsed.

        Raises:
            PortForwardError, Unreadable, TooLarge, OtherStatus: There is no usable answer.
        """
        async with contextlib.AsyncExitStack() as turn:
            await turn.enter_async_context(self._limits.opening())
            waits(False)
            asked_at, answered_at = self._unix(), 0.0
            body = bytearray()
            async with self._asked(to, path, bounds) as pieces:
                async for piece in pieces:
                    answered_at = answered_at or self._unix()
                    body += piece
                line = bytes(body)
                body.clear()
                waits(True)
                status = await self._parsed(read_whole_line, line, Allowance(bounds.body))
                # Close the stream only after parsing, because closing takes another round trip.
                await turn.aclose()
        return Read(status, asked_at, answered_at)

    async def changes(
        self, to: ForwardTarget, path: str, bounds: Bounds, *, first_s: float, silent_s: float
    ) -> AsyncGenerator[Read, None]:
        """Yield the answer after each change, and the same answer again while nothing changes.

        Args:
            bounds: Bounds of a line, and of the answer accumulated from lines.
            first_s: Timeout of the first answer.
            silent_s: The maximum silence after that; longer for an agent whose lines are rare.

        Raises:
            PortForwardError, Unreadable, TooLarge, OtherStatus: The stream ended.
            TimeoutError: No line arrived in time.
        """
        loop = asyncio.get_running_loop()
        last: Read | None = None
        rate, beat = _Rate(loop.time, *_CHANGES_PER_S), _Beat(silent_s)
        allowance = Allowance(bounds.body)
        async with contextlib.AsyncExitStack() as turn, asyncio.timeout(None) as silence:
            await turn.enter_async_context(self._limits.opening())
            silence.reschedule(loop.time() + first_s)
            asked_at, answered_at = self._unix(), 0.0
            async with self._asked(to, path, _STREAM) as pieces:
                async for piece, complete in _lines(pieces, bounds.body):
                    answered_at = answered_at or self._unix()
                    if last is not None:
                        rate.count(piece)
                    for line in complete:
                        if (wait_s := allowance.pacing.due - Clocks.monotonic()) > 0:
                            silence.reschedule(None)
                            await self._pause(wait_s)
                        last = await self._next(line, last, (asked_at, answered_at), allowance)
                        if last is not None:
                            silence.reschedule(beat.next_end(loop.time()))
                            await turn.aclose()
                            yield last
        raise Unreadable("the stream ended")

    async def lines(
        self, to: ForwardTarget, path: str, *, first_s: float, silent_s: float
    ) -> AsyncGenerator[bytes, None]:
        """Yield an empty line once the stream has begun, and then the stream's lines.

        Args:
            first_s: Timeout of the stream's start.
            silent_s: The maximum silence, including empty lines.

        Raises:
            PortForwardError, Unreadable, TooLarge, OtherStatus: The stream ended.
            TimeoutError: Nothing arrived in time.
        """
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(first_s) as silence:
            rate = _Rate(loop.time, *_LINES_PER_S)
            async with self._asked(to, path, _STREAM) as pieces:
                async for piece, complete in _lines(pieces, LINE_BYTES):
                    silence.reschedule(loop.time() + silent_s)
                    rate.count(piece)
                    if not piece:
                        yield b""
                    for line in filter(None, complete):
                        yield line
        raise Unreadable("the stream ended")

    async def _next(
        self, line: bytes, last: Read | None, at: tuple[float, float], allowance: Allowance
    ) -> Read | None:
        if last is None:
            if not line:
                return None
            return Read(await self._parsed(read_whole_line, line, allowance), *at)
        now = self._unix()
        if not line:
            # Nothing has changed: the node's time is still the time of the last line, so keep the
            # time of that line's request.
            return Read(last.status, last.asked_at, now)
        status = await self._parsed(partial(read_change, last.status), line, allowance)
        # The agent wrote this answer after it had sent the previous line, so that line's arrival
        # counts as the time of the request.
        return Read(status, last.answered_at, now)

    def _asked(
        self, to: ForwardTarget, path: str, bounds: Bounds
    ) -> contextlib.aclosing[AsyncGenerator[bytes, None]]:
        return contextlib.aclosing(ask(self._client, to, path, bounds))

    async def _parsed(self, read: Callable[[bytes, _How], _T], line: bytes, how: _How) -> _T:
        """Parse a line, one long line at a time in a thread; raise Unreadable if invalid."""
        try:
            if len(line) <= _INLINE_BYTES:
                return read(line, how)
            async with self._limits.parsing:
                return await asyncio.to_thread(read, line, how)
        except ValueError as exc:
            raise Unreadable(" ".join(str(exc).split())[:_TEXT_MAX]) from exc


async def _lines(
    pieces: AsyncIterable[bytes], bytes_max: int
) -> AsyncIterator[tuple[bytes, list[bytes]]]:
    """Yield each piece of a stream with the lines it completes; raise TooLarge for long lines."""
    begun = bytearray()
    async for piece in pieces:
        begun += piece
        complete: list[bytes] = []
        if b"\n" in piece:
            *complete, rest = bytes(begun).split(b"\n")
            begun = bytearray(rest)
        if max(map(len, (*complete, begun))) > bytes_max:
            raise TooLarge(bytes_max)
        yield piece, complete


class _Beat:
    """The deadline of an agent's next line: on large nodes, lines may be half a minute apart."""

    def __init__(self, least_s: float) -> None:
        self._least_s = least_s
        self._gap_s = FIRST_GAP_S
        self._last_at = 0.0

    def next_end(self, now: float) -> float:
        """Record a line, and return the next line's deadline."""
        if self._last_at:
            gap_s = now - self._last_at
            self._gap_s = gap_s if self._gap_s == FIRST_GAP_S else max(gap_s, self._gap_s)
        self._last_at = now
        return now + max(self._least_s, _GAPS * self._gap_s)


class _Rate:
    """The amount of data that a stream has sent, with a limit per second."""

    def __init__(self, clock: Callable[[], float], lines_per_s: int, bytes_per_s: int) -> None:
        self._clock = clock
        self._lines_per_s, self._bytes_per_s = lines_per_s, bytes_per_s
        self._began = clock()
        self._lines = self._bytes = 0

    def count(self, piece: bytes) -> None:
        """Count a piece; raise TooLarge if the stream sends more than a proxy would."""
        self._bytes += max(len(piece), most_of(piece) // DECODED_PER_BYTE)
        self._lines += piece.count(b"\n")
        seconds = self._clock() - self._began + 10
        most = int(self._bytes_per_s * seconds)
        if self._bytes > most or self._lines > self._lines_per_s * seconds:
            raise TooLarge(most)


def cause_of_failure(
    exc: UserspaceProxyError,
    namespace: str,
    node_state: str = "",
    last_end: ContainerEnd = NOT_ENDED,
) -> Cause:
    """Return why there is no answer.

    Args:
        exc: The exception raised by a call.
        namespace: The agent's namespace.
        node_state: Why the Node isn't ready; empty if it is ready, or its state is unknown.
        last_end: How the agent's container last ended.
    """
    text = " ".join(str(exc).split())[:_TEXT_MAX]
    match exc:
        case TooLarge(bytes_max=bytes_max):
            return agent_causes.answer_too_large(namespace, bytes_max / (1 << 20))
        case OtherStatus() | Unreadable():
            return agent_causes.answer_unreadable(namespace, text)
    ended = f"; its container last {last_end.text[:_TEXT_MAX]}" if last_end.text else ""
    is_oom = last_end.is_out_of_memory
    return agent_causes.forward_failed(
        namespace, f"{text}{ended}", node_state, out_of_memory=is_oom
    )


_REFUSAL_MAX = 200


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


async def ask(
    client: ApiClient, to: ForwardTarget, path: str, bounds: Bounds
) -> AsyncGenerator[bytes, None]:
    """Send a request to an agent, and yield the body as it arrives, after an empty first piece.

    The empty piece marks the answer's first byte. The event loop runs between any two pieces.
    The caller closes the generator.

    Raises:
        PortForwardError: The pod can't be reached, or the stream broke.
        Unreadable, TooLarge, OtherStatus: The answer can't be used.
    """
    answer, has_begun, refusal = HttpAnswer(bounds), False, bytearray()
    host = f"127.0.0.1:{to.port}"
    stream = await open_stream(client, to)
    try:
        request = request_for(path, host, accept="application/json", takes_gzip=True)
        await stream.send(request)
        while not answer.is_complete and len(refusal) < _REFUSAL_MAX:
            data = await stream.receive()
            if not has_begun:
                has_begun = True
                yield b""
            for piece in answer.feed(data):
                if answer.code == 200:
                    yield piece
                else:
                    refusal += piece[:_REFUSAL_MAX]
                await pause(0)
    finally:
        await stream.close()
    if answer.code != 200:
        if not answer.is_of_proxy:
            raise Unreadable("another program answers at that port, perhaps kube-proxy")
        text = " ".join(refusal.decode(errors="replace").split())
        raise OtherStatus(answer.code, text[:_REFUSAL_MAX])
