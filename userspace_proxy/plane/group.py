"""A Service port in the control half: the messages about it, and the sums of workers' reports."""

from __future__ import annotations

import operator
from collections.abc import Hashable, Iterable, Mapping, Sequence, Set
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
    TIMES_BOUNDS_S,
    CounterTable,
    Durations,
    EndpointCounters,
    GroupCounters,
    LastMinute,
)
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

# Former endpoints of one group, as many as a Service port may have present ones. What a worker
# reports of others isn't believed, nor kept.
KNOWN_MAX = 10_000

Way = Literal["dials", "answers"]
"""From this node to an endpoint, or back; which one an obstacle was looked for on."""

_COUNTED = tuple(name for name in MINUTE_NAMES if name in EndpointCounters.names)
# Of an endpoint's figures, which are what is new: those that fall again; the bytes that it has
# sent, its failed dials, and those of _COUNTED.
_look_up_open = itemgetter(*map(EndpointCounters.names.index, GAUGES))
_look_up = itemgetter(*map(EndpointCounters.names.index, ("sent_bytes", "failures", *_COUNTED)))
_NO_SERVING = Serving()
_NOTHING_MEASURED = _NO_SERVING, ""
_NOTHING_OPEN = (0,) * len(GAUGES)
# Cost: most Service ports have nothing open, ejected or failed, and share this.
_NONE = cast("dict[Any, Any]", MappingProxyType({}))

K = TypeVar("K")
V = TypeVar("V")


@dataclass(slots=True)
class GroupUpdate:
    """How a group differs from what a worker knows of it; one that waits is brought up to date."""

    group: int
    key: PortKey
    old: Serving | None
    """None: the worker doesn't know the group."""
    new: Serving

    def message(self) -> OpenGroup | ChangeGroup:
        if self.old is None:
            return OpenGroup(self.group, self.key, self.new)
        changes = diff_endpoints(self.old.endpoints, self.new.endpoints)
        others = replace(self.new, endpoints=())
        have_others_changed = others != replace(self.old, endpoints=())
        return ChangeGroup(self.group, *changes, others if have_others_changed else None)


class Group(CounterTable):
    """The endpoints of one Service port, and the sums of what workers have counted for them.

    Messages identify it by its number.
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
        """The last one of :meth:`change`."""
        self.revision = 0
        """Grows whenever a figure, a failure or an ejection may have changed."""
        self.ended_workers = 0
        """How many worker processes have ended: what they hadn't reported yet isn't counted."""
        self.denials = Denials()
        """Which packets were dropped, and why."""
        self.last_minute = LastMinute()
        """Its clients of the last minute."""
        self._failed_at: dict[SocketAddress, LastMinute] = _NONE
        """Those that failed at an endpoint, of which ``refused`` are its failed dials; no others.
        """
        self.sent_at = -1.0
        """Monotonic seconds at which an endpoint last sent a client something, as it was reported;
        negative if none ever did."""
        self._former: tuple[SocketAddress, ...] = ()
        """Former endpoints, the latest last: connections outlive their endpoint."""
        self._open: dict[int, dict[SocketAddress, tuple[int, ...]]] = _NONE
        """By worker: what is open, as in ``GAUGES``, to be subtracted when it dies."""
        self._ejected: dict[int, dict[SocketAddress, float]] = _NONE
        """By worker: monotonic seconds at which a probe is due."""
        self._waiting: dict[int, tuple[int, float]] = _NONE
        """By worker: the clients that wait, and since when the first of them has."""
        self._slow_start = SlowStart()
        """As in each worker."""
        self._measured = _NOTHING_MEASURED
        """What was measured last, and why it is too large."""
        self._obstacles: dict[tuple[SocketAddress, Way], Obstacle] = _NONE
        """What keeps packets from endpoints, or their answers from here."""

    @property
    def label(self) -> str:
        """What logs, and workers of the last process, know it by."""
        return str(self.key)

    def opening(self) -> GroupUpdate:
        """Return what opens it in a worker."""
        return GroupUpdate(self.number, self.key, None, self.serving)

    def why_too_large(self, serving: Serving) -> str:
        """Return why it can't be served like this: workers don't take such a message; or empty."""
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
        """Change how it is served; returns what changed for workers, None if nothing did."""
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
        known = dict.fromkeys((*self._former, *old.all_endpoints))
        former = [endpoint for endpoint in known if endpoint not in current]
        excess = max(0, len(former) - KNOWN_MAX)
        self._forget(former[:excess])
        self._former = tuple(former[excess:])
        failed_at = {each: at for each, at in self._failed_at.items() if each in current}
        self._failed_at = failed_at or _NONE
        self.fold(current)
        return GroupUpdate(self.number, self.key, old, serving)

    def _forget(self, endpoints: Sequence[SocketAddress]) -> None:
        """Subtract open connections to endpoints of which nothing more is counted."""
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
            # The first one is of all its clients.
            if new_failures or any(clients[1:]):
                failed = MinuteCounts(
                    **dict(zip(_COUNTED, clients, strict=True)), refused=new_failures
                )
                if endpoint not in self._failed_at:
                    self._failed_at = _with(self._failed_at, endpoint, LastMinute())
                self._failed_at[endpoint].add(failed, now)
            for name, part in each.streaks().items():
                getattr(counters, name).add(part.not_after(now))
            # An empty datagram is an answer, too; a byte whose client has left is none.
            has_sent = new_bytes > 0 and not counters.ends.is_on
            self.sent_at = max(self.sent_at, now if has_sent else counters.ends.succeeded_at)
            before = open_of.pop(endpoint, _NOTHING_OPEN)
            open_ = tuple(map(operator.add, before, _look_up_open(each.figures)))
            if any(number > 0 for number in open_):
                open_of[endpoint] = tuple(max(0, number) for number in open_)
            if any(number < 0 for number in open_):
                # Ends of connections that were subtracted when it was forgotten.
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
        """Make the counters of endpoints for which nothing was counted yet; of unknown ones none.

        Cost: they are kept under the plan's own address, as that of the report is another object.
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
        """Note what a worker has ejected now, and which clients wait in it."""
        ejected = {endpoint: now + left for endpoint, left in report.ejected}
        self._ejected = _with(self._ejected, worker, ejected)
        waiting, clients = report.waiting, None
        if waiting is not None:
            clients = waiting.clients, now - waiting.longest_s
        self._waiting = _with(self._waiting, worker, clients)

    def worker_ended(self, worker: int) -> None:
        """Subtract a worker's open connections; the rest of what it counted stays."""
        self.revision += 1
        self.ended_workers += 1
        for endpoint, open_ in self._open.get(worker, {}).items():
            self._subtract(endpoint, open_)
        self._open = _with(self._open, worker, None)
        self._ejected = _with(self._ejected, worker, None)
        self._waiting = _with(self._waiting, worker, None)

    def failed_at(self, endpoint: SocketAddress, now: float) -> MinuteCounts:
        """Return the clients of the last minute that failed at an endpoint; see ``_failed_at``."""
        failed = self._failed_at.get(endpoint)
        return MinuteCounts() if failed is None else failed.failing(now)

    @property
    def has_passing(self) -> bool:
        """Whether ejections, waits or slow starts go on, whose figures change with time alone."""
        return bool(self._waiting) or any(self._ejected.values()) or bool(self._slow_start)

    def waiting(self, now: float) -> Waiting:
        """Return the clients that wait for an endpoint, in all workers."""
        if not self._waiting:
            return Waiting()
        clients, since = zip(*self._waiting.values(), strict=True)
        return Waiting(sum(clients), max(0.0, now - min(since)))

    def returned(self, endpoint: SocketAddress, now: float) -> None:
        """Note that an ejected endpoint has answered a worker."""
        if self._slow_start.seconds:
            others = frozenset(self.serving.all_endpoints) - {endpoint}
            self._slow_start.begin(self.serving.newcomers(others), now)

    def note_obstacle(
        self, endpoint: SocketAddress, obstacle: Obstacle | None, way: Way = "dials"
    ) -> None:
        """Note what keeps this node's packets from an endpoint; None: nothing is known.

        Args:
            way: Where it is; each is looked at by another watcher.
        """
        key = endpoint, way
        if self._obstacles.get(key) == obstacle:
            return
        self.revision += 1
        self._obstacles = _with(self._obstacles, key, obstacle)

    def obstacle_to(self, endpoint: SocketAddress) -> Obstacle | None:
        """Return what is known to keep this node's packets from an endpoint, or its answers."""
        if not self._obstacles:
            # Cost: nearly always so, and asked for each endpoint of a view.
            return None
        dials, answers = (self._obstacles.get((endpoint, way)) for way in get_args(Way))
        return dials or answers

    def starting(self, now: float) -> Mapping[SocketAddress, float]:
        """Return what endpoints that start slowly have of their shares."""
        return self._slow_start.shares(now)

    def ejected(self, now: float) -> Mapping[SocketAddress, float]:
        """Return what any worker has ejected, each with the longest time until its probe.

        Without those that have answered since: a worker that answered no sooner than another one's
        failure ejects the endpoint, too, until a client dials it there again.
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


class Totals:
    """What workers have counted for all Service ports together, former ones included.

    The sums never fall, whatever Service ports and endpoints go: metrics rely on that.
    """

    def __init__(self) -> None:
        self.counters = GroupCounters()
        self.endpoints = EndpointCounters()
        """Over all endpoints; ``GAUGES`` aren't meaningful, as they aren't corrected when a worker
        ends."""
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
    """What a program keeps about one endpoint of a group."""

    group: Group
    endpoint: SocketAddress
    serving: Serving | None
    """The last one that contained the endpoint; None at first."""


Key = TypeVar("Key", bound=Hashable)


def keys_of_removed(followed: Mapping[Key, FollowedEndpoint]) -> list[Key]:
    """Return the keys of endpoints that have left their group, or with it.

    Notes the ``serving`` of those that stay, so that only groups that have changed are searched.
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
    """Each with its index in the new list, lowest first."""


def diff_endpoints(have: Sequence[SocketAddress], want: Sequence[SocketAddress]) -> EndpointChanges:
    """Compare two lists without duplicates, whose order is that of round robin.

    If the order of those that stay differs, everything is removed and added.
    """
    wanted, had = frozenset(want), frozenset(have)
    staying = [e for e in have if e in wanted]
    if staying != [e for e in want if e in had]:
        return EndpointChanges(list(have), list(enumerate(want)))
    removed = [e for e in have if e not in wanted]
    return EndpointChanges(removed, [(n, e) for n, e in enumerate(want) if e not in had])


def _with(held: dict[K, V], key: K, value: V | None) -> dict[K, V]:
    """Return what is held with this value, or without it if there is nothing in it."""
    if value:
        if held is _NONE:
            return {key: value}
        held[key] = value
    elif key in held:
        del held[key]
    return held or _NONE
