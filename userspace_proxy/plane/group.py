"""Holds the state of a Service port in the control process, and sums the workers' reports."""

from __future__ import annotations

import operator
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from operator import itemgetter
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, Protocol, TypeVar, cast, get_args

import msgspec
from msgspec.structs import replace

from ..balance import SlowStart
from ..dataplane import Waiting
from ..facts import (
    GAUGES,
    LAST_MINUTE_S,
    TIMES_BOUNDS_S,
    CounterTable,
    Durations,
    EndpointCounters,
    GroupCounters,
    LastMinute,
    StreakPart,
)
from ..facts.counters import STREAKS
from ..facts.last_minute import MINUTE_NAMES, MinuteCounts
from ..model import PortKey, SocketAddress
from ..model.node_network import Obstacle
from ..model.serving import Serving
from .denials import Denials
from .messages import (
    MAX_GROUP_BYTES,
    ChangeGroup,
    DurationReport,
    GroupReport,
    OpenGroup,
)

# The maximum number of former endpoints of a group: as many as a Service port may have endpoints.
# Reports about unknown endpoints are discarded.
KNOWN_MAX = 10_000

Way = Literal["dials", "answers"]
"""The direction of a blocked path: from this node to an endpoint, or back."""

_COUNTED = tuple(name for name in MINUTE_NAMES if name in EndpointCounters.names)
# These functions select figures of an endpoint's report: the first selects the gauges, which may
# decrease; the second the bytes that the endpoint has sent, its failed dials, and _COUNTED.
_look_up_open = itemgetter(*map(EndpointCounters.names.index, GAUGES))
_look_up = itemgetter(*map(EndpointCounters.names.index, ("sent_bytes", "failures", *_COUNTED)))
_NO_SERVING = Serving()
_NOTHING_MEASURED = _NO_SERVING, ""
_NOTHING_OPEN = (0,) * len(GAUGES)
# Cost: most Service ports have nothing open, ejected or failed, and share this mapping.
_NONE = cast("dict[Any, Any]", MappingProxyType({}))

K = TypeVar("K")
V = TypeVar("V")


class _Former(NamedTuple):
    """A former endpoint."""

    at: float
    """When its counters were folded, in monotonic seconds; negative if it had none."""
    streaks: Mapping[str, StreakPart]
    """Its streaks at that time, by name; empty after a minute."""


_UNTRIED = _Former(-LAST_MINUTE_S, {})


@dataclass(slots=True)
class GroupUpdate:
    """A change to a worker's copy of a group; updated while the message waits."""

    group: int
    key: PortKey
    old: Serving | None
    """The worker's current copy; None if the worker doesn't have the group."""
    new: Serving

    def message(self) -> OpenGroup | ChangeGroup:
        if self.old is None:
            return OpenGroup(self.group, self.key, self.new)
        changes = diff_endpoints(self.old.endpoints, self.new.endpoints)
        others = replace(self.new, endpoints=())
        have_others_changed = others != replace(self.old, endpoints=())
        return ChangeGroup(self.group, *changes, others if have_others_changed else None)


class Group(CounterTable):
    """The endpoints of one Service port, and the sums of the workers' counts for them.

    Messages identify the group by its number.
    """

    __slots__ = (
        "_ejected",
        "_failed_at",
        "_former",
        "_measured",
        "_obstacles",
        "_open",
        "_slow_start",
        "_waiting",
        "denials",
        "ended_workers",
        "key",
        "last_minute",
        "number",
        "revision",
        "sent_at",
        "serving",
    )

    def __init__(self, number: int, key: PortKey) -> None:
        super().__init__()
        self.number = number
        self.key = key
        self.serving = _NO_SERVING
        """The ``Serving`` of the last :meth:`change`."""
        self.revision = 0
        """Incremented whenever a figure, a failure or an ejection may have changed."""
        self.ended_workers = 0
        """How many worker processes have exited, each of which lost its unreported counts."""
        self.denials = Denials()
        """The dropped packets, by reason."""
        self.last_minute = LastMinute()
        """The clients of the last minute."""
        self._failed_at: dict[SocketAddress, LastMinute] = _NONE
        """The clients for which each endpoint failed; ``refused`` counts its failed dials."""
        self.sent_at = -1.0
        """When an endpoint was last reported to have sent bytes to a client, in monotonic seconds;
        negative if no endpoint has."""
        self._former: dict[SocketAddress, _Former] = _NONE
        """Former endpoints, the latest one last: connections to an endpoint may outlive it."""
        self._open: dict[int, dict[SocketAddress, tuple[int, ...]]] = _NONE
        """The ``GAUGES`` of endpoints by worker; subtracted when the worker dies."""
        self._ejected: dict[int, dict[SocketAddress, float]] = _NONE
        """The ejected endpoints by worker, each with the monotonic seconds of its next probe."""
        self._waiting: dict[int, tuple[int, float]] = _NONE
        """The number of waiting clients by worker, and when the first of them began to wait, in
        monotonic seconds."""
        self._slow_start = SlowStart()
        """A copy of the workers' slow start."""
        self._measured = _NOTHING_MEASURED
        """The ``Serving`` that was measured last, and why it is too large; empty if it isn't."""
        self._obstacles: dict[tuple[SocketAddress, Way], Obstacle] = _NONE
        """Obstacles to packets for endpoints, or to their answers."""

    @property
    def label(self) -> str:
        """The group's name in logs, and in messages of previous workers."""
        return str(self.key)

    def opening(self) -> GroupUpdate:
        """Return the update that opens this group in a worker."""
        return GroupUpdate(self.number, self.key, None, self.serving)

    def too_large_reason(self, serving: Serving) -> str:
        """Return why a ``Serving`` doesn't fit in one message to a worker; empty if it does."""
        last, why = self._measured
        if serving != last:
            why = self._measure(serving)
            self._measured = serving, why
        return why

    def _measure(self, serving: Serving) -> str:
        size = len(msgspec.json.encode(OpenGroup(self.number, self.key, serving)))
        if size <= MAX_GROUP_BYTES:
            return ""
        return (
            f"its endpoints, networks and faults take {size:,} bytes, "
            f"and a worker process takes {MAX_GROUP_BYTES:,}"
        )

    def change(self, serving: Serving, now: float = 0.0) -> GroupUpdate | None:
        """Change the ``Serving``; return the update for workers, or None if nothing changed."""
        old, self.serving = self.serving, serving
        if old == serving:
            return None
        self.revision += 1
        if old.all_endpoints and not serving.all_endpoints and serving.handling.hold is None:
            self.last_minute.add(MinuteCounts(flaps=1), now)
        self.denials.change(serving, now)
        current = frozenset(serving.all_endpoints)
        self._slow_start.change(serving.handling.slow_start_s, now)
        self._slow_start.keep(current)
        if self._slow_start.seconds:
            self._slow_start.begin(serving.newcomers(frozenset(old.all_endpoints)), now)
        known = self._former.items()
        former = {e: one if now - one.at < LAST_MINUTE_S else _UNTRIED for e, one in known}
        former |= dict.fromkeys(old.all_endpoints, _UNTRIED)
        returned = {endpoint: former.pop(endpoint) for endpoint in current.intersection(former)}
        excess = max(0, len(former) - KNOWN_MAX)
        self._forget([*former][:excess])
        counted = dict(self.each_counters())
        self.fold(current)
        for endpoint in former.keys() & counted.keys():
            if self.find_counters(endpoint) is None:
                former[endpoint] = _Former(now, _streaks_of(counted[endpoint]))
        self._former = dict([*former.items()][excess:])
        for endpoint, before in returned.items():
            # An endpoint that returns, for example with its Node, may still fail as before.
            for name, part in before.streaks.items():
                getattr(self.counters_of(endpoint), name).add(part)
        failed_at = {each: at for each, at in self._failed_at.items() if each in current}
        self._failed_at = failed_at or _NONE
        return GroupUpdate(self.number, self.key, old, serving)

    def _forget(self, endpoints: Sequence[SocketAddress]) -> None:
        """Subtract open connections to endpoints that are no longer counted."""
        for open_of in self._open.values():
            for endpoint in endpoints:
                if (open_ := open_of.pop(endpoint, None)) is not None:
                    self._subtract(endpoint, open_)

    def _subtract(self, endpoint: SocketAddress, open_: Iterable[int]) -> None:
        counters = self.counters_of(endpoint)
        for name, number in zip(GAUGES, open_, strict=True):
            setattr(counters, name, getattr(counters, name) - number)

    def add(self, worker: int, report: GroupReport, now: float) -> None:
        self.revision += 1
        self.counters.add(report.figures)
        new_of = dict(zip(GroupCounters.names, report.figures, strict=True))
        if new_of["denied"] > 0:
            self.denials.add(new_of["denied"], now)
        if new_of["out_of_ports"] > 0:
            self.out_of_ports_at = now
        if new_of["out_of_client_ports"] > 0:
            self.out_of_client_ports_at = now
        _add_durations(self.connect_times, report.connect_times)
        _add_durations(self.first_byte_times, report.first_byte_times)
        for mistake, new in report.client_mistakes.items():
            self.mistakes_of(mistake).add(new.not_after(now))
        open_of = self._open.get(worker) or {}
        recent = [[0] * len(_COUNTED)]
        self._begin_counters(report)
        for each in report.endpoints:
            endpoint = each.endpoint
            counters = self.find_counters(endpoint)
            if counters is None:
                continue
            counters.add(each.figures)
            new_bytes, new_failures, *clients = _look_up(each.figures)
            recent.append(clients)
            # Skip the first figure, which counts all clients.
            if new_failures or any(clients[1:]):
                failed = MinuteCounts(
                    **dict(zip(_COUNTED, clients, strict=True)), refused=new_failures
                )
                if endpoint not in self._failed_at:
                    self._failed_at = _with(self._failed_at, endpoint, LastMinute())
                self._failed_at[endpoint].add(failed, now)
            for name, part in each.streaks().items():
                getattr(counters, name).add(part.not_after(now))
            # An empty datagram is also an answer; a byte for a client that has left isn't.
            has_sent = new_bytes > 0 and not counters.ends.is_on
            self.sent_at = max(self.sent_at, now if has_sent else counters.ends.succeeded_at)
            before = open_of.pop(endpoint, _NOTHING_OPEN)
            open_ = tuple(map(operator.add, before, _look_up_open(each.figures)))
            if any(number > 0 for number in open_):
                open_of[endpoint] = tuple(max(0, number) for number in open_)
            if any(number < 0 for number in open_):
                # These connections were subtracted with the forgotten endpoint: count them again.
                self._subtract(endpoint, (min(0, number) for number in open_))
        sums = dict(zip(_COUNTED, map(sum, zip(*recent, strict=True)), strict=True))
        after = new_of["aborts_after_wait"]
        ended = new_of["waits.timeouts"] + new_of["waits.overflows"]
        refused, waited = new_of["refused"] - ended, ended + new_of["waits.client_aborts"] + after
        sums["connections"] -= after
        sums |= {"refused": refused, "queued": waited, "removed": new_of["ended_by_removal"]}
        sums["idle"] = new_of["ended_idle"]
        self.last_minute.add(MinuteCounts(**sums), now)
        self._open = _with(self._open, worker, open_of)
        self._note_passing(worker, report, now)

    def _begin_counters(self, report: GroupReport) -> None:
        """Create the counters of known endpoints that don't have any yet.

        Cost: the plan's addresses become the keys, so that the report's copies aren't kept.
        """
        new = [e.endpoint for e in report.endpoints if self.find_counters(e.endpoint) is None]
        if new:
            known = {
                endpoint: endpoint for endpoint in (*self._former, *self.serving.all_endpoints)
            }
            for endpoint in new:
                if endpoint in known:
                    self.counters_of(known[endpoint])

    def _note_passing(self, worker: int, report: GroupReport, now: float) -> None:
        """Record a worker's current ejections and waiting clients."""
        ejected = {endpoint: now + left for endpoint, left in report.ejected}
        self._ejected = _with(self._ejected, worker, ejected)
        waiting, clients = report.waiting, None
        if waiting is not None:
            clients = waiting.clients, now - waiting.longest_s
        self._waiting = _with(self._waiting, worker, clients)

    def worker_ended(self, worker: int) -> None:
        """Subtract a worker's open connections; forget its ejections and waits, keep its counts."""
        self.revision += 1
        self.ended_workers += 1
        for endpoint, open_ in self._open.get(worker, {}).items():
            self._subtract(endpoint, open_)
        self._open = _with(self._open, worker, None)
        self._ejected = _with(self._ejected, worker, None)
        self._waiting = _with(self._waiting, worker, None)

    @property
    def stalled(self) -> Iterator[SocketAddress]:
        """The endpoints that leave open connections unanswered."""
        for open_of in self._open.values():
            yield from (e for e in open_of if self.read_counters(e).stalled)

    def failed_at(self, endpoint: SocketAddress, now: float) -> MinuteCounts:
        """Return the last minute's failures of an endpoint: clients, and dials in ``refused``."""
        failed = self._failed_at.get(endpoint)
        return MinuteCounts() if failed is None else failed.failing(now)

    @property
    def has_passing(self) -> bool:
        """Whether an ejection, a wait or a slow start is in progress, whose figures change."""
        return bool(self._waiting) or any(self._ejected.values()) or bool(self._slow_start)

    def waiting(self, now: float) -> Waiting:
        """Return the waiting clients in all workers."""
        if not self._waiting:
            return Waiting()
        clients, since = zip(*self._waiting.values(), strict=True)
        return Waiting(sum(clients), max(0.0, now - min(since)))

    def returned(self, endpoint: SocketAddress, now: float) -> None:
        """Begin the slow start, if it is configured, of an ejected endpoint that has answered."""
        if self._slow_start.seconds:
            others = frozenset(self.serving.all_endpoints) - {endpoint}
            self._slow_start.begin(self.serving.newcomers(others), now)

    def note_obstacle(
        self, endpoint: SocketAddress, obstacle: Obstacle | None, way: Way = "dials"
    ) -> None:
        """Record the obstacle between this node and an endpoint; None if no obstacle is known.

        Args:
            way: The direction; each direction has its own watcher.
        """
        key = endpoint, way
        if self._obstacles.get(key) == obstacle:
            return
        self.revision += 1
        self._obstacles = _with(self._obstacles, key, obstacle)

    def obstacle_to(self, endpoint: SocketAddress) -> Obstacle | None:
        """Return the known obstacle to an endpoint's packets or answers; None if there is none."""
        if not self._obstacles:
            # Cost: return early in the usual case; a view calls this for each endpoint.
            return None
        dials, answers = (self._obstacles.get((endpoint, way)) for way in get_args(Way))
        return dials or answers

    def starting(self, now: float) -> Mapping[SocketAddress, float]:
        """Return the endpoints in slow start, each with its fraction of the full share."""
        return self._slow_start.shares(now)

    def ejected(self, now: float) -> Mapping[SocketAddress, float]:
        """Return the endpoints ejected by any worker, each with the most seconds until a probe.

        Endpoints that have answered since are omitted: a worker may apply another worker's ejection
        after the answer, and keeps it until one of its clients dials the endpoint.
        """
        left: dict[SocketAddress, float] = {}
        current = frozenset(self.serving.all_endpoints)
        for ejected in self._ejected.values():
            for endpoint, until in ejected.items():
                if endpoint in current and not self._has_answered_since(endpoint):
                    left[endpoint] = max(left.get(endpoint, 0.0), until - now)
        return left

    def _has_answered_since(self, endpoint: SocketAddress) -> bool:
        dials = self.read_counters(endpoint).dials
        return dials.succeeded_at >= 0 and not dials.is_on


def _streaks_of(counters: EndpointCounters) -> Mapping[str, StreakPart]:
    """Return an endpoint's streaks by name, without streaks that have no attempt."""
    parts = ((name, getattr(counters, name).whole()) for name in STREAKS)
    return {name: part for name, part in parts if part != StreakPart()}


class Totals:
    """The counts of all workers for all Service ports together, including removed Service ports.

    The sums don't decrease when Service ports or endpoints are removed: metrics rely on that.
    """

    def __init__(self) -> None:
        self.counters = GroupCounters()
        self.endpoints = EndpointCounters()
        """Sums over all endpoints; ``GAUGES`` are meaningless here, because nothing is subtracted
        when a worker exits."""
        self.connect_times = Durations(TIMES_BOUNDS_S)
        self.first_byte_times = Durations(TIMES_BOUNDS_S)

    def add(self, report: GroupReport) -> None:
        self.counters.add(report.figures)
        _add_durations(self.connect_times, report.connect_times)
        _add_durations(self.first_byte_times, report.first_byte_times)
        for each in report.endpoints:
            self.endpoints.add(each.figures)


def _add_durations(durations: Durations, report: DurationReport | None) -> None:
    if report is not None:
        durations.merge(report.counts, report.seconds)


class FollowedEndpoint(Protocol):
    """A watcher's record of one endpoint of a group."""

    group: Group
    endpoint: SocketAddress
    serving: Serving | None
    """The last ``Serving`` that contained the endpoint; None before the first one."""


Key = TypeVar("Key", bound=Hashable)


def keys_of_removed(followed: Mapping[Key, FollowedEndpoint]) -> list[Key]:
    """Return the keys of endpoints that have left their group, or whose group was removed.

    Records the ``serving`` of the remaining endpoints, so that only changed groups are searched.
    """
    removed = []
    current: dict[int, Set[SocketAddress]] = {}
    for key, one in followed.items():
        serving = one.group.serving
        if serving is one.serving:
            continue
        if one.group.number not in current:
            current[one.group.number] = frozenset(serving.all_endpoints)
        if one.endpoint in current[one.group.number]:
            one.serving = serving
        else:
            removed.append(key)
    return removed


class EndpointChanges(NamedTuple):
    """Changes that turn one list of endpoints into another: remove, then insert in order."""

    removed: list[SocketAddress]
    added: list[tuple[int, SocketAddress]]
    """Endpoints with their index in the new list, lowest first."""


def diff_endpoints(have: Sequence[SocketAddress], want: Sequence[SocketAddress]) -> EndpointChanges:
    """Return the changes between two lists, each in round-robin order and without duplicates.

    If the order of remaining endpoints differs, all endpoints are removed and added.
    """
    wanted, had = frozenset(want), frozenset(have)
    staying = [e for e in have if e in wanted]
    if staying != [e for e in want if e in had]:
        return EndpointChanges(list(have), list(enumerate(want)))
    removed = [e for e in have if e not in wanted]
    return EndpointChanges(removed, [(n, e) for n, e in enumerate(want) if e not in had])


def _with(held: dict[K, V], key: K, value: V | None) -> dict[K, V]:
    """Set a key of ``held``, or remove it if the value is empty; return the resulting mapping."""
    if value:
        if held is _NONE:
            return {key: value}
        held[key] = value
    elif key in held:
        del held[key]
    return held or _NONE
