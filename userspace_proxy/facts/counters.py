"""Declares the counters per endpoint and per Service port.

Their names, and which may decrease, are in the table of figures. They are slots, because they are
incremented on the traffic path: incrementing a field of a msgspec Struct takes 1.5 times as long.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Container, Iterable, Mapping
from operator import attrgetter, itemgetter
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypeAlias, cast

from ..causes.cause import DIAL_CAUSES, CauseCode
from ..model import Failure, SocketAddress
from ..model.failures import LEFT
from .figures import GAUGES, PortFigures, Traffic, WaitCounts, Waits, counted_names
from .histogram import TIMES_BOUNDS_S, Durations
from .last_minute import MINUTE_NAMES
from .streak import Exclusions, LateByte, Streak, StreakPart


class Counters:
    """Named counters that can be summed, and sent as numbers in the order of their names."""

    __slots__: tuple[str, ...] = ()
    names: ClassVar[tuple[str, ...]] = ()
    """The names of the counters; a dot separates a part from its counter."""
    _get: ClassVar[Callable[[Any], tuple[int, ...]]]
    _places: ClassVar[tuple[tuple[str, str], ...]] = ()

    def __init_subclass__(cls) -> None:
        if cls.names:
            cls._get = attrgetter(*cls.names)
            parts = (name.rpartition(".") for name in cls.names)
            cls._places = tuple((part, last) for part, _, last in parts)

    def figures(self) -> tuple[int, ...]:
        return type(self)._get(self)  # noqa: SLF001 - its own

    def add(self, figures: Iterable[int]) -> None:
        """Add numbers in the order of ``names``; raise ValueError if their count is wrong."""
        for (part, last), figure in zip(self._places, figures, strict=True):
            # Cost: skip zeros, because most counters of most endpoints are 0.
            if figure:
                counters = getattr(self, part) if part else self
                setattr(counters, last, getattr(counters, last) + figure)


# The type checker can't evaluate _slots(), so it uses the tables; PortFigures.waits is a Waits.
if TYPE_CHECKING:
    _EndpointSlots = Traffic
    _PortSlots = PortFigures
    _WaitSlots = Waits
else:

    def _slots(table: type) -> type:
        """Return a class with a slot for each integer field of a table."""
        return type("_Slots", (), {"__slots__": counted_names(table)})

    _EndpointSlots, _PortSlots, _WaitSlots = map(_slots, (Traffic, PortFigures, WaitCounts))

STREAKS = "dials", "ends", "denials", "cuts", "exclusions"
"""The names of the failure streaks of one endpoint."""
_succeeded_at = attrgetter(*(f"{name}.succeeded_at" for name in STREAKS))
_parts_of = attrgetter(*(f"{name}.part" for name in STREAKS))
# Endpoints without failures, or with unchanged streaks, share these values to save memory.
_NO_SUCCESS = (Streak().succeeded_at,) * len(STREAKS)
_NO_FAILURE = (Streak().part,) * len(STREAKS)
_NOTHING_OPEN = (0,) * len(GAUGES)
# If half of all clients only send, this many do so in a row once in a million times.
_CLOSED_MAX = 20
# The counts of the last minute that aren't counted per endpoint.
_OTHERS = "queued", "removed", "idle", "flaps"
_COUNTED_ELSEWHERE = (*counted_names(Traffic), *counted_names(PortFigures), *_OTHERS)
_UNANSWERED = (*(name for name in MINUTE_NAMES if name not in _COUNTED_ELSEWHERE), "left_open")
# The counter for each cause of a failed dial.
_FAILURES = {code: code.replace("-", "_") for code in DIAL_CAUSES}


_CARRIED = (
    "connections", "received_bytes", "sent_bytes", "resets", "empty", "client_aborts",
    "unanswered_flows",
)  # fmt: skip
_carried_of = attrgetter(*_CARRIED)


class WaitCounters(_WaitSlots, Counters):
    """Counters of a Service port's clients that began to wait, or waited without success."""

    __slots__ = ()
    names = counted_names(WaitCounts)

    def __init__(self) -> None:
        for name in self.names:
            setattr(self, name, 0)


class EndpointCounters(_EndpointSlots, Counters):
    """The counters and failure streaks of one endpoint of one Service port."""

    names = (*counted_names(Traffic), *_FAILURES.values(), *_UNANSWERED)
    __slots__ = (
        *_FAILURES.values(), *STREAKS, *_UNANSWERED, "_closed", "_open", "_parts", "_succeeded_at",
    )  # fmt: skip

    def __init__(self) -> None:
        for name in (*counted_names(Traffic), *_FAILURES.values()):
            setattr(self, name, 0)
        self.unanswered = 0
        """Connections that the endpoint closed or reset before its first byte, and flows that got
        no answer for two seconds, as in ``ends``."""
        self.endpoint_aborts = 0
        """Connections cut after the endpoint had sent bytes: it reset them, or packets were lost
        and the client left, as in ``cuts``."""
        self.late = 0
        """Flows that were answered after more than two seconds, which ``unanswered`` counts until
        then, and connections saved from a silent endpoint."""
        self.unanswered_requests = 0
        """Connections that ended while another answer was due."""
        self.left_open = 0
        """Connections in ``unanswered_requests`` that the endpoint didn't end after the client."""
        self.dials = Streak()
        """Failed dials, except dials that failed because of this node."""
        self.ends = Streak()
        """Connections that the endpoint ended, as in ``resets`` and ``empty``, or that the client
        left; a first byte on another connection, or in time on another flow, is a success."""
        self.denials = Streak()
        """Dials from client addresses that failed although the endpoint answers this node; an
        answer to one of these clients is a success if this process still remembers the client."""
        self.cuts = Streak()
        """Connections counted in ``endpoint_aborts``; a connection that both sides close is a
        success."""
        self.exclusions = Exclusions()
        """Connections counted in ``unanswered`` of clients that the endpoint ignores while it
        answers others; an answer to one of these clients is a success."""
        self._closed = -1.0, 0
        """Monotonic seconds of the last answer, and :meth:`ended_after_client` calls since then."""
        self._open = _NOTHING_OPEN
        """The values of ``GAUGES`` at the last :meth:`take`."""
        self._succeeded_at: tuple[float, ...] = _NO_SUCCESS
        self._parts: tuple[StreakPart, ...] = _NO_FAILURE

    def take(self) -> tuple[int, ...]:
        """Return and reset the counts; for ``GAUGES``, return the changes since the last call."""
        figures = self.figures()
        if self._open is _NOTHING_OPEN and not any(figures):
            return figures
        for name, figure in zip(self.names, figures, strict=True):
            if figure and name not in GAUGES:
                setattr(self, name, 0)
        new, before, now = list(figures), self._open, _open_of(figures)
        for place, open_ in zip(_OPEN_AT, before, strict=True):
            new[place] -= open_
        self._open = now if any(now) else _NOTHING_OPEN
        return tuple(new)

    def take_streaks(self) -> dict[str, StreakPart]:
        """Return the failures and successes of each changed streak since the last call, by name."""
        succeeded_at, parts = _succeeded_at(self), _parts_of(self)
        if succeeded_at == self._succeeded_at and parts == self._parts:
            return {}
        new: dict[str, StreakPart] = {}
        each = zip(STREAKS, self._succeeded_at, self._parts, succeeded_at, parts, strict=True)
        for name, at_before, before, at, part in each:
            if part != before:
                whole_before = before._replace(succeeded_at=at_before)
                new[name] = part._replace(succeeded_at=at).since(whole_before)
            elif at != at_before:
                new[name] = StreakPart(at)
        self._succeeded_at = succeeded_at
        if parts != self._parts:
            self._parts = parts
        return new

    def ended_unanswered(self, now: float, failure: Failure, client: str = "") -> None:
        """Record a connection that ended before the endpoint's first byte.

        Args:
            failure: One of ``model.failures.LEFT`` if the client gave up; otherwise the endpoint
                ended it.
            client: The client's IP address; empty for a flow.
        """
        if failure in LEFT:
            self.client_aborts += 1
        else:
            self.unanswered_flows += failure is Failure.NO_DATAGRAM
            self.unanswered += 1
            if client:
                self.exclusions.ended(client, now, failure, self.ends.succeeded_at)
        self.ends.failed(now, failure)

    def ended_after_client(self) -> bool:
        """Record a connection closed without a byte after the client's FIN.

        Returns whether there were too many since the last answer for clients that only send.
        """
        answered_at, count = self._closed
        count = count + 1 if answered_at == self.ends.succeeded_at else 1
        self._closed = self.ends.succeeded_at, count
        return count >= _CLOSED_MAX

    def came_late(self, waited_s: float) -> None:
        """Record the answer to a flow that was counted as unanswered, and stays a failure."""
        late = LateByte(waited_s, is_at_end=False)
        self.ends.still_fails(self.ends.part.last_at, Failure.NO_DATAGRAM, late=late)
        self.unanswered -= 1
        self.late += 1

    def was_cut(self, now: float, failure: Failure = Failure.RESET, client: str = "") -> None:
        """Record a connection that was cut after the endpoint had sent bytes.

        Args:
            failure: One of ``model.failures.LOSSES`` if packets were lost and the client left.
            client: The client's IP address, if packets were lost.
        """
        self.endpoint_aborts += 1
        self.cuts.failed(now, failure, client)

    def count_failure(self, code: CauseCode) -> None:
        name = _FAILURES.get(code, _FAILURES[DIAL_CAUSES[-1]])
        setattr(self, name, getattr(self, name) + 1)
        self.failures += 1

    def failures_by_cause(self) -> Mapping[CauseCode, int]:
        """Return the number of failed dials by cause, omitting causes with a count of 0."""
        counts = {code: getattr(self, name) for code, name in _FAILURES.items()}
        return {code: count for code, count in counts.items() if count}


_OPEN_AT = tuple(map(EndpointCounters.names.index, GAUGES))
_open_of = itemgetter(*_OPEN_AT)


_NOTHING_COUNTED = EndpointCounters()


class AfterWait:
    """A counter of connections that clients leave before an answer, after a wait for an endpoint.

    It replaces an endpoint's counters in :mod:`.connection_outcome`, because these connections
    don't count for an endpoint.
    """

    __slots__ = ("_table", "ends")

    def __init__(self, table: CounterTable) -> None:
        self._table = table
        self.ends = Streak()

    @property
    def client_aborts(self) -> int:
        return self._table.counters.aborts_after_wait

    @client_aborts.setter
    def client_aborts(self, count: int) -> None:
        self._table.counters.aborts_after_wait = count

    def ended_unanswered(self, now: float, failure: Failure, _client: str = "") -> None:
        self.client_aborts += 1
        self.ends.failed(now, failure)


AbortCounters: TypeAlias = EndpointCounters | AfterWait
"""Counters for clients that leave before an answer."""


class GroupCounters(_PortSlots, Counters):
    """Counters per Service port, in addition to the sums over its endpoints."""

    names = (
        *counted_names(PortFigures),
        "out_of_client_ports",
        "out_of_ports",
        *(f"waits.{name}" for name in WaitCounters.names),
        "aborts_after_wait",
    )
    __slots__ = ("aborts_after_wait", "out_of_client_ports", "out_of_ports", "waits")

    def __init__(self) -> None:
        for name in counted_names(PortFigures):
            setattr(self, name, 0)
        self.out_of_ports = 0
        """The number of dials for which this node's address had no free port."""
        self.out_of_client_ports = 0
        """Dials for which the client's address had no free port: they failed, or used this node's
        address."""
        self.waits = WaitCounters()
        self.aborts_after_wait = 0
        """Connections that clients left before an answer, after waiting for an endpoint."""


class ClientMistake(enum.StrEnum):
    """Why a client's request was rejected; the values are codes of causes."""

    NO_PROXY_HEADER = CauseCode.NO_PROXY_HEADER.value
    HOP_LIMIT = CauseCode.HOP_LIMIT.value


# Cost: all Service ports without a mistake share this mapping.
_NO_MISTAKES: Mapping[ClientMistake, Streak] = MappingProxyType({})
_NO_COUNTERS = cast("dict[SocketAddress, EndpointCounters]", MappingProxyType({}))
_NEVER = -math.inf


class TakenCounts(NamedTuple):
    """Counts for all clients of one Service port together; None if nothing was counted."""

    counters: GroupCounters | None
    connect_times: Durations | None
    first_byte_times: Durations | None
    client_mistakes: Mapping[ClientMistake, Streak]


class CounterTable:
    """All counters of one Service port, including the counters of its former endpoints."""

    __slots__ = (
        "_connect_times",
        "_counters",
        "_first_byte_times",
        "_gone",
        "_per_endpoint",
        "client_mistakes",
        "has_news",
        "out_of_client_ports_at",
        "out_of_ports_at",
    )

    def __init__(self) -> None:
        self.has_news = False
        """Whether anything may have been counted since this flag was last cleared, except in
        counters that callers hold."""
        self.out_of_ports_at = _NEVER
        """Monotonic seconds at which ``out_of_ports`` last grew."""
        self.out_of_client_ports_at = _NEVER
        """Monotonic seconds at which ``out_of_client_ports`` last grew."""
        self.client_mistakes = _NO_MISTAKES
        """The streaks of clients that were rejected because of their requests, by mistake; serving
        other clients doesn't end a streak."""
        self._per_endpoint = _NO_COUNTERS
        self._gone: EndpointCounters | None = None
        """The sum of the counters of former endpoints."""
        # Cost: a Service port without clients doesn't have this object, which halves its memory.
        self._counters: GroupCounters | None = None
        self._connect_times: Durations | None = None
        self._first_byte_times: Durations | None = None

    @property
    def counters(self) -> GroupCounters:
        """The counters for all clients together, for counting; created if necessary."""
        if self._counters is None:
            self._counters, self.has_news = GroupCounters(), True
        return self._counters

    @property
    def connect_times(self) -> Durations:
        """How long TCP clients waited until an endpoint answered, including failed dials."""
        if self._connect_times is None:
            self._connect_times, self.has_news = Durations(TIMES_BOUNDS_S), True
        return self._connect_times

    @property
    def first_byte_times(self) -> Durations:
        """How long endpoints took to send their first byte, for TCP.

        The time is measured from the endpoint's answer or the client's first byte, whichever came
        later.
        """
        if self._first_byte_times is None:
            self._first_byte_times, self.has_news = Durations(TIMES_BOUNDS_S), True
        return self._first_byte_times

    @property
    def has_counted(self) -> bool:
        """Whether anything may have been counted."""
        is_of_all = self._counters or self._connect_times or self._first_byte_times
        return bool(is_of_all or self._per_endpoint or self._gone or self.client_mistakes)

    def counters_of(self, endpoint: SocketAddress) -> EndpointCounters:
        """Return the counters of an endpoint, for counting; create them if necessary."""
        self.has_news = True
        counters = self._per_endpoint.get(endpoint)
        if counters is None:
            if self._per_endpoint is _NO_COUNTERS:
                self._per_endpoint = {}
            counters = self._per_endpoint[endpoint] = EndpointCounters()
        return counters

    def find_counters(self, endpoint: SocketAddress) -> EndpointCounters | None:
        return self._per_endpoint.get(endpoint)

    def read_counters(self, endpoint: SocketAddress) -> EndpointCounters:
        """Return the counters of an endpoint, for reading only.

        Cost: endpoints without counts share one object, so that a view creates none.
        """
        return self._per_endpoint.get(endpoint, _NOTHING_COUNTED)

    def has_answered(self) -> bool:
        """Return whether an endpoint that isn't folded has sent a byte, in this process."""
        return any(one.ends.succeeded_at >= 0 for one in self._per_endpoint.values())

    def each_counters(self) -> Iterable[tuple[SocketAddress, EndpointCounters]]:
        return self._per_endpoint.items()

    def note_mistake(self, mistake: ClientMistake, client: str, now: float) -> None:
        """Count a client that was rejected because of its request."""
        self.mistakes_of(mistake).failed(now, client=client)

    def mistakes_of(self, mistake: ClientMistake) -> Streak:
        """Return the streak of clients rejected for a mistake; create it if necessary."""
        self.has_news = True
        if mistake not in self.client_mistakes:
            self.client_mistakes = {**self.client_mistakes, mistake: Streak()}
        return self.client_mistakes[mistake]

    def take(self) -> TakenCounts:
        """Return the counts for all clients together, and restart counting from 0."""
        taken = TakenCounts(
            self._counters, self._connect_times, self._first_byte_times, self.client_mistakes
        )
        self._counters = self._connect_times = self._first_byte_times = None
        self.client_mistakes = _NO_MISTAKES
        return taken

    def totals(self) -> EndpointCounters:
        """Return the sums over all endpoints, including former endpoints."""
        sums = EndpointCounters()
        for counters in self._parts():
            sums.add(counters.figures())
        return sums

    def carried(self) -> Traffic:
        """Return the figures of ``_CARRIED`` in :meth:`totals`, at a fraction of the cost."""
        sums = map(sum, zip(*map(_carried_of, self._parts()), strict=True))
        return Traffic(**dict(zip(_CARRIED, sums, strict=False)))

    def _parts(self) -> Iterable[EndpointCounters]:
        gone = () if self._gone is None else (self._gone,)
        return (*gone, *self._per_endpoint.values())

    def fold(self, current: Container[SocketAddress]) -> None:
        """Replace the counters of endpoints that are neither current nor in use by their sum."""
        for endpoint, counters in list(self._per_endpoint.items()):
            if endpoint not in current and counters.active == 0:
                if self._gone is None:
                    self._gone = EndpointCounters()
                self._gone.add(self._per_endpoint.pop(endpoint).figures())
