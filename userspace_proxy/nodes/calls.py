"""Asks agents for their JSON, many at a time, within bounds of time, memory and load.

    ask ──pieces──▶ Gathered ──line──▶ lines.read… ──▶ Read

Rule 1: at most OPENING_MAX agents are being opened at a time; one that is slow gives its place up
and goes on, so that silent nodes don't keep others from being asked.
Rule 2: what is gathered of an answer beyond SMALL_BYTES needs one of LARGE_MAX places, until it has
been parsed, so memory has a bound whatever the agents send.
Rule 3: a stream that sends more than a proxy would is ended.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass, replace

from ..causes import agents
from ..causes.cause import Cause
from ..clocks import Clocks
from ..errors import UserspaceProxyError
from ..facts import StatusFacts
from ..facts.encoding import encode_answer
from ..sources.kubernetes.client import ApiClient
from ..sources.kubernetes.port_forward import ForwardTarget, PortForwardError
from .ask import Bounds, OpenAnswer, OtherStatus, TooLarge, Unreadable, ask
from .lines import read_change, read_whole_line

OPENING_MAX = 32
"""As many port-forwards are being opened at a time; each is a connection to a kubelet, too."""
SLOW_S = 0.5
"""After that time an agent that hasn't answered gives its place up."""
SMALL_BYTES = 1 << 20
LARGE_MAX = 2

FIRST_GAP_S = 10.0
"""Between two lines of an agent, while that isn't known yet."""

ANSWER = Bounds()
_STREAM = Bounds(wire=0, body=0)
# A proxy sends one line a second of what has changed, and one for each connection.
_CHANGES_PER_S = 4
_LINES_PER_S = 10_000
# An agent is gone that has sent nothing for so many times its usual gap.
_GAPS = 4
_BYTES_PER_S = 8 << 20
# Parsed in the event loop, as a thread takes longer.
_INLINE_BYTES = 64 << 10
_TEXT_MAX = 300


@dataclass(frozen=True, slots=True)
class Read:
    """What an agent has answered."""

    status: StatusFacts
    asked_at: float
    """Unix time."""
    answered_at: float
    """Unix time at which its first byte arrived."""
    size: int
    """Bytes of its JSON; of a stream, of lines since they were measured, too."""


class Limits:
    """What all calls share.

    Args:
        slow_s: See SLOW_S.
    """

    def __init__(self, slow_s: float = SLOW_S) -> None:
        self._slow_s = slow_s
        self._opening = asyncio.Semaphore(OPENING_MAX)
        self.large = asyncio.Semaphore(LARGE_MAX)
        self.parsing = asyncio.Lock()

    @contextlib.asynccontextmanager
    async def opening(self) -> AsyncIterator[None]:
        """Have a place among the agents that are being opened, for a while at most."""
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


class _Gathered:
    """The parts of one line."""

    def __init__(
        self, limits: Limits, stack: contextlib.AsyncExitStack, bytes_max: int = ANSWER.body
    ) -> None:
        self._limits = limits
        self._bytes_max = bytes_max
        self._stack = stack
        self._parts: list[bytes] = []
        self._is_large = False
        self.size = 0

    async def add(self, part: bytes) -> None:
        """Add a part; waits while others are large."""
        self.size += len(part)
        if self.size > self._bytes_max:
            raise TooLarge(self._bytes_max)
        if self.size > SMALL_BYTES and not self._is_large:
            self._is_large = True
            await self._stack.enter_async_context(self._limits.large)
        self._parts.append(part)

    def take(self) -> bytes:
        """Return the line; the next one begins."""
        line = b"".join(self._parts)
        self._parts.clear()
        self.size = 0
        return line

    async def rest(self) -> None:
        """Give back the place of a large line, which has been parsed."""
        self._is_large = False
        await self._stack.aclose()


class AgentCalls:
    """Asks agents.

    Args:
        client: Of the API server, open.
        unix: Returns the Unix time.
    """

    def __init__(
        self,
        client: ApiClient,
        limits: Limits | None = None,
        *,
        unix: Callable[[], float] = Clocks.time,
    ) -> None:
        self._client = client
        self._limits = limits or Limits()
        self._unix = unix

    async def body(self, to: ForwardTarget, path: str, bounds: Bounds = ANSWER) -> bytes:
        """Return the body of an answer.

        Raises:
            PortForwardError, Unreadable, TooLarge, OtherStatus: There is none.
        """
        async with self._opened(to, path, bounds) as asked, contextlib.AsyncExitStack() as stack:
            gathered = _Gathered(self._limits, stack)
            async for piece in asked.pieces():
                await gathered.add(piece)
            return gathered.take()

    async def status(
        self, to: ForwardTarget, path: str, bounds: Bounds, begun: Callable[[], None]
    ) -> Read:
        """Return an answer that is read once.

        Args:
            begun: Called when it is this agent's turn.

        Raises:
            PortForwardError, Unreadable, TooLarge, OtherStatus: There is none.
        """
        async with (
            contextlib.AsyncExitStack() as turn,
            contextlib.AsyncExitStack() as large,
        ):
            await turn.enter_async_context(self._limits.opening())
            begun()
            asked_at, answered_at = self._unix(), 0.0
            async with self._opened(to, path, bounds) as asked:
                gathered = _Gathered(self._limits, large)
                async for piece in asked.pieces():
                    answered_at = answered_at or self._unix()
                    await gathered.add(piece)
                size, line = gathered.size, gathered.take()
                status = await self._parsed(line, None)
                # Closing takes a round trip more.
                await turn.aclose()
        return Read(status, asked_at, answered_at, size)

    async def changes(
        self, to: ForwardTarget, path: str, bounds: Bounds, *, first_s: float, silent_s: float
    ) -> AsyncGenerator[Read, None]:
        """Yield an answer, and again after each change; while there is none, the same again.

        Args:
            bounds: Of a line, and of the answer that lines add to.
            first_s: How long the first answer may take.
            silent_s: How long nothing may arrive after it; more of an agent whose lines are rare.

        Raises:
            PortForwardError, Unreadable, TooLarge, OtherStatus: It ended.
            TimeoutError: Nothing arrived.
        """
        loop = asyncio.get_running_loop()
        last: Read | None = None
        rate, beat = _Rate(loop.time, _CHANGES_PER_S), _Beat(silent_s)
        async with (
            contextlib.AsyncExitStack() as turn,
            contextlib.AsyncExitStack() as large,
            asyncio.timeout(None) as silence,
        ):
            gathered = _Gathered(self._limits, large, bounds.body)
            await turn.enter_async_context(self._limits.opening())
            silence.reschedule(loop.time() + first_s)
            asked_at, answered_at = self._unix(), 0.0
            async with self._opened(to, path, _STREAM) as asked:
                async for piece in asked.pieces():
                    answered_at = answered_at or self._unix()
                    if last is not None:
                        rate.count(piece)
                    *complete, rest = piece.split(b"\n")
                    for part in complete:
                        await gathered.add(part)
                        size, line = gathered.size, gathered.take()
                        last = await self._next(line, last, size, (asked_at, answered_at))
                        if last is not None and last.size > 2 * bounds.body:
                            last = await self._measured(last, bounds.body)
                        await gathered.rest()
                        if last is not None:
                            silence.reschedule(beat.next_end(loop.time()))
                            await turn.aclose()
                            yield last
                    await gathered.add(rest)
        raise Unreadable("the stream ended")

    async def lines(
        self, to: ForwardTarget, path: str, *, first_s: float, silent_s: float
    ) -> AsyncGenerator[bytes, None]:
        """Yield the lines of a stream, and an empty one once it has begun.

        Args:
            first_s: How long it may take to begin.
            silent_s: How long nothing may arrive, not even an empty line.

        Raises:
            PortForwardError, Unreadable, TooLarge, OtherStatus: It ended.
            TimeoutError: Nothing arrived.
        """
        loop = asyncio.get_running_loop()
        async with contextlib.AsyncExitStack() as large, asyncio.timeout(first_s) as silence:
            gathered = _Gathered(self._limits, large, SMALL_BYTES)
            rate = _Rate(loop.time, _LINES_PER_S)
            async with self._opened(to, path, _STREAM) as asked:
                async for piece in asked.pieces():
                    silence.reschedule(loop.time() + silent_s)
                    rate.count(piece)
                    *complete, rest = piece.split(b"\n")
                    if not piece:
                        yield b""
                    for part in complete:
                        await gathered.add(part)
                        if line := gathered.take():
                            yield line
                    await gathered.add(rest)
        raise Unreadable("the stream ended")

    async def _next(
        self, line: bytes, last: Read | None, size: int, at: tuple[float, float]
    ) -> Read | None:
        if last is None:
            if not line:
                return None
            return Read(await self._parsed(line, None), *at, size)
        now = self._unix()
        if not line:
            # What it says of its clock is as old as the last line.
            return Read(last.status, last.asked_at, now, last.size)
        status = await self._parsed(line, last.status)
        # It was written after the last one had arrived, and before it arrived itself.
        return Read(status, last.answered_at, now, last.size + size)

    async def _measured(self, read: Read, bytes_max: int) -> Read:
        """Return the same with its size: lines may change what there is, or add to it."""
        size = len(await asyncio.to_thread(encode_answer, read.status))
        if size > bytes_max:
            raise TooLarge(bytes_max)
        return replace(read, size=size)

    @contextlib.asynccontextmanager
    async def _opened(
        self, to: ForwardTarget, path: str, bounds: Bounds
    ) -> AsyncIterator[OpenAnswer]:
        asked = await ask(self._client, to, path, bounds)
        try:
            yield asked
        finally:
            await asked.close()

    async def _parsed(self, line: bytes, before: StatusFacts | None) -> StatusFacts:
        """Return the facts after a line, by a thread if it is long; one long line at a time."""

        def read() -> StatusFacts:
            return read_whole_line(line) if before is None else read_change(before, line)

        try:
            if len(line) <= _INLINE_BYTES:
                return read()
            async with self._limits.parsing:
                return await asyncio.to_thread(read)
        except ValueError as exc:
            raise Unreadable(" ".join(str(exc).split())[:_TEXT_MAX]) from exc


class _Beat:
    """How long an agent may be silent: large ones have a line in half a minute only."""

    def __init__(self, least_s: float) -> None:
        self._least_s = least_s
        self._gap_s = FIRST_GAP_S
        self._last_at = 0.0

    def next_end(self, now: float) -> float:
        """Note a line, and return until when the next one must have arrived."""
        if self._last_at:
            gap_s = now - self._last_at
            self._gap_s = gap_s if self._gap_s == FIRST_GAP_S else max(gap_s, self._gap_s)
        self._last_at = now
        return now + max(self._least_s, _GAPS * self._gap_s)


class _Rate:
    """How much a stream has sent."""

    def __init__(self, clock: Callable[[], float], lines_per_s: int) -> None:
        self._clock = clock
        self._lines_per_s = lines_per_s
        self._began = clock()
        self._lines = self._bytes = 0

    def count(self, piece: bytes) -> None:
        """Raise TooLarge if it is more than a proxy sends."""
        self._bytes += len(piece)
        self._lines += piece.count(b"\n")
        seconds = self._clock() - self._began + 10
        most = int(_BYTES_PER_S * seconds)
        if self._bytes > most or self._lines > self._lines_per_s * seconds:
            raise TooLarge(most)


def cause_of_failure(exc: UserspaceProxyError, namespace: str, node_state: str = "") -> Cause:
    """Return why there is no answer.

    Args:
        exc: What a call has raised.
        namespace: That of the agent.
        node_state: Why the Node isn't ready; empty if it is, or that isn't known.
    """
    text = " ".join(str(exc).split())[:_TEXT_MAX]
    match exc:
        case PortForwardError():
            return agents.forward_failed(namespace, text, node_state)
        case TooLarge(bytes_max=bytes_max):
            return agents.answer_too_large(namespace, bytes_max >> 20)
        case OtherStatus() | Unreadable():
            return agents.answer_unreadable(namespace, text)
    return agents.forward_failed(namespace, text, node_state)
