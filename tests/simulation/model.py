"""The reference model of a Service port in one worker: whom a client may use now, and must.

    served, sent, failed, answered, taken, released ──▶ Model ──▶ options, excluded, has_left

Written from what is promised (docs/services.md, ADR 0041, 0051, 0052, 0062), not from the program,
of which only value types are used here.

Rule 1: a moment is a span of time: the program reads its clock once in a turn of its loop, so what
it does within a turn happens at some moment between the turn's beginning and now.
Rule 2: where a span makes several answers right, all are returned; what differs between them
excuses one event, and no other one.
Rule 3: each side, inside and outside, has its own pins, and finds out on its own that an endpoint
is due; a failure concerns both.
"""

from __future__ import annotations

import enum
import ipaddress
import itertools
import math
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from userspace_proxy.model import Balance, SocketAddress
from userspace_proxy.model.serving import Serving

Span = tuple[float, float]
"""The earliest and the latest moment at which something happens."""

FIRST_S, LONGEST_S = 5.0, 60.0
"""An endpoint that fails is ejected for 5 s, then for twice as long each time, up to 60 s."""
PROBE_S = 3.0
"""A client waits for an answer for three dials of a second; so long a probe may last."""
QUIET_S = 1.0
"""While all are ejected, one client a second dials an endpoint that was silent."""
MOST_TRIED = 16
"""Endpoints for one client (ADR 0062)."""
SLOW_START_FLOOR = 0.1
_SLOW_START_STEPS = 50
_MOST_UNSURE = 6
"""Facts that may be either; with more of them nothing is judged."""
_NEVER = (-1.0, -1.0)
# Sums of times differ in their last digits.
_CLOCK_S = 1e-6


class Sure(enum.Enum):
    """An answer of the model."""

    NO = 0
    EITHER = 1
    YES = 2


class Kind(enum.Enum):
    """Why a client gets what it gets."""

    PINNED = "pinned"
    """Its endpoint, by affinity."""
    TURN = "turn"
    """One of those that are usable, by the strategy."""
    LAST = "last"
    """One that is ejected, as no other one is left."""
    WAIT = "wait"
    """None: it waits for room at an endpoint."""
    NONE = "none"
    """None: it is refused, or held."""


class Option(NamedTuple):
    """What a client may get."""

    kind: Kind
    endpoints: frozenset[SocketAddress]
    level: tuple[SocketAddress, ...] = ()
    """All endpoints of their priority, in order."""


@dataclass
class Exclusion:
    """Of one endpoint on one side: until when no client is sent there, then one probe."""

    until: Span
    lasts: Span
    is_silent: bool = False
    quiet: Span = _NEVER
    probe: Span = _NEVER
    """Until when a probe is under way."""
    is_sure: bool = True
    """Otherwise the program may not have taken the failure for one of the endpoint."""

    def is_out(self, at: Span) -> Sure:
        """Return whether no client is sent to the endpoint, unless all are excluded."""
        ends = max(self.until[0], self.probe[0]), max(self.until[1], self.probe[1])
        return self._is_before(at, ends)

    def is_quiet(self, at: Span) -> Sure:
        """Return whether no client is sent to it even then."""
        return self._is_before(at, self.quiet) if self.is_silent else Sure.NO

    def _is_before(self, at: Span, end: Span) -> Sure:
        sure = _before(at, end)
        # The program may have no exclusion of it, so that nothing notes a dial either.
        return Sure.EITHER if sure is Sure.YES and not self.is_sure else sure


class Pin(NamedTuple):
    """The endpoint of a client, and when that was used last."""

    endpoint: SocketAddress
    used: Span
    is_sure: bool = True


@dataclass
class Side:
    """What the clients of one side share."""

    endpoints: tuple[SocketAddress, ...] = ()
    levels: tuple[tuple[SocketAddress, ...], ...] = ()
    """By priority."""
    excluded: dict[SocketAddress, Exclusion] = field(default_factory=dict)
    pins: dict[str, Pin] = field(default_factory=dict)
    unpinned: set[str] = field(default_factory=set)
    """Clients whose pins were forgotten at once, before their dials began."""
    left: dict[SocketAddress, float] = field(default_factory=dict)
    """When endpoints, also those on standby, were last left out."""

    @property
    def first(self) -> tuple[SocketAddress, ...]:
        return self.levels[0] if self.levels else ()

    def change(
        self,
        endpoints: tuple[SocketAddress, ...],
        serving: Serving,
        at: float,
        timeout_s: float | None = None,
    ) -> None:
        """Take other endpoints; the timeout is that of pins until now."""
        served = self.first
        priorities = dict(serving.standbys)
        levels: dict[int, list[SocketAddress]] = {}
        for endpoint in endpoints:
            levels.setdefault(priorities.get(endpoint, 0), []).append(endpoint)
        self.endpoints = endpoints
        self.levels = tuple(tuple(level) for _, level in sorted(levels.items()))
        self.excluded = {e: known for e, known in self.excluded.items() if e in endpoints}
        self.left.update((e, at) for e in served if e not in self.first)
        self.left = {e: since for e, since in self.left.items() if e not in self.first}
        if serving.affinity_timeout_s is None:
            self.pins.clear()
        for client, pin in self.pins.items():
            is_over = timeout_s is not None and pin.used[1] + timeout_s <= at
            if is_over or pin.endpoint not in endpoints:
                # With a longer timeout, or back before the client is, it may have its client back.
                self.pins[client] = pin._replace(is_sure=False)


class Loads:
    """The connections to each endpoint, dials included."""

    def __init__(self) -> None:
        self._at: dict[Hashable, tuple[SocketAddress, bool]] = {}
        self.sure: Counter[SocketAddress] = Counter()
        self.unsure: Counter[SocketAddress] = Counter()
        """Dials that began while nothing depended on loads: they may count, or not."""

    def of(self, endpoint: SocketAddress) -> tuple[int, int]:
        """Return the least and the most that an endpoint may have."""
        sure = self.sure[endpoint]
        return sure, sure + self.unsure[endpoint]

    def add(self, key: Hashable, endpoint: SocketAddress, *, is_sure: bool = True) -> None:
        """Count the connection, or dial, of a client; it replaces an earlier one."""
        self.remove(key)
        self._at[key] = endpoint, is_sure
        (self.sure if is_sure else self.unsure)[endpoint] += 1

    def remove(self, key: Hashable) -> None:
        """Count it no more. Idempotent."""
        known = self._at.pop(key, None)
        if known is not None:
            endpoint, is_sure = known
            (self.sure if is_sure else self.unsure)[endpoint] -= 1


class Model:
    """One Service port in one worker.

    Args:
        serving: How it is served first.
        at: Since when.
        share_of: Returns this worker's part of ``max-connections``.
    """

    def __init__(
        self,
        serving: Serving,
        at: float,
        share_of: Callable[[int | None], int | None] = lambda limit: limit,
    ) -> None:
        self.serving = Serving()
        self.inner, self.outer = Side(), Side()
        self.loads = Loads()
        self._share_of = share_of
        self.began: dict[SocketAddress, Span] = {}
        """When endpoints that start slowly began to; since ever, where they may not have."""
        self.changed_at = at
        self._inside: list[ipaddress.IPv4Network | ipaddress.IPv6Network] = []
        self.served(serving, at)
        self.began.clear()

    # -- what happens ------------------------------------------------------------------------------

    def served(self, serving: Serving, at: float) -> None:
        """The Service port is served in another way."""
        old, self.serving = self.serving, serving
        self._inside = [ipaddress.ip_network(text) for text in serving.inside]
        if serving.outside is None:
            # Its clients are the other side's from now on.
            left = {**self.outer.left, **self.inner.left}
            self.outer = Side(left=left)
        self.inner.change(serving.endpoints, serving, at, old.affinity_timeout_s)
        self.outer.change(serving.used_outside, serving, at, old.affinity_timeout_s)
        self.changed_at = at
        if serving.handling.slow_start_s != old.handling.slow_start_s:
            self.began = dict(_starting(self.began, old.handling.slow_start_s, at))
        if serving.handling.slow_start_s:
            before, priorities = old.all_endpoints, dict(serving.standbys)
            shared = {priorities.get(e, 0) for e in serving.all_endpoints if e in before}
            new = [e for e in serving.all_endpoints if e not in before]
            self.began = {e: s for e, s in self.began.items() if e in serving.all_endpoints}
            self.began.update((e, (at, at)) for e in new if priorities.get(e, 0) in shared)
        else:
            self.began.clear()

    def sent(self, client: str, endpoint: SocketAddress, at: Span) -> None:
        """A client is sent to an endpoint, which is dialled now."""
        side = self.side_of(client)
        if self.serving.affinity_timeout_s is not None:
            side.pins[client] = Pin(endpoint, at)
            if client in side.unpinned:
                del side.pins[client]
            side.unpinned.clear()
        known = side.excluded.get(endpoint)
        if known is not None:
            known.quiet = _later(at, QUIET_S)
            if at[1] >= known.until[0]:
                probe = _later(at, PROBE_S)
                known.probe = probe if at[0] >= known.until[1] else (known.probe[0], probe[1])

    def failed(self, endpoint: SocketAddress, at: Span, *, is_silent: bool = False) -> Sure:
        """A dial has failed; return whether that begins an ejection, or prolongs one."""
        answers = [
            _failed(side, endpoint, at, is_silent=is_silent)
            for side in self.sides
            if endpoint in side.endpoints
        ]
        return max(answers, key=lambda sure: sure.value, default=Sure.NO)

    def may_have_failed(
        self, endpoint: SocketAddress, at: Span, *, is_silent: bool = False
    ) -> None:
        """A dial has failed, or has ended before its time was up: nothing is sure from then on."""
        for side in self.sides:
            if endpoint in side.endpoints:
                known = side.excluded.get(endpoint)
                was_sure = known is not None and known.is_sure
                least = at[0] if known is None else known.until[0]
                _failed(side, endpoint, at, is_silent=is_silent)
                now = side.excluded[endpoint]
                now.until, now.is_sure = (least, now.until[1]), was_sure
                now.quiet = at[0], now.quiet[1]

    def answered(self, endpoint: SocketAddress, at: Span) -> Sure:
        """A dial was answered, here or in another worker; return whether that ends an ejection."""
        popped = [side.excluded.pop(endpoint, None) for side in self.sides]
        ended = [known for known in popped if known is not None]
        is_sure = any(known.is_sure for known in ended)
        if ended and self.serving.handling.slow_start_s:
            priorities = dict(self.serving.standbys)
            own = priorities.get(endpoint, 0)
            others = [e for e in self.serving.all_endpoints if e != endpoint]
            if any(priorities.get(e, 0) == own for e in others):
                self.began[endpoint] = at if is_sure else (-math.inf, at[1])
        if not ended:
            return Sure.NO
        return Sure.YES if is_sure else Sure.EITHER

    def may_have_answered(self, endpoint: SocketAddress) -> None:
        """An answer may have ended an ejection, or it goes on."""
        for side in self.sides:
            if endpoint in side.excluded:
                side.excluded[endpoint].is_sure = False

    def forgot_pin(self, side: Side, client: str, used: float) -> None:
        """A client was forgotten, whose pin was used last at that moment."""
        known = side.pins.pop(client, None)
        if known is None or known.used[1] < used:
            side.unpinned.add(client)

    # -- what follows ------------------------------------------------------------------------------

    @property
    def sides(self) -> tuple[Side, ...]:
        return (self.inner,) if self.serving.outside is None else (self.inner, self.outer)

    def side_of(self, client: str) -> Side:
        """Return the side of a client, by its address."""
        if self.serving.outside is None:
            return self.inner
        ip = ipaddress.ip_address(client)
        return self.inner if any(ip in network for network in self._inside) else self.outer

    @property
    def limit(self) -> int | None:
        """The most connections to one endpoint."""
        return self._share_of(self.serving.handling.max_connections)

    @property
    def counts_dials(self) -> bool:
        """Whether a dial that begins now counts as a load."""
        by_load = (Balance.LEAST_CONNECTIONS, Balance.POWER_OF_TWO_CHOICES)
        return self.limit is not None or self.serving.handling.balance in by_load

    @property
    def is_uniform(self) -> bool:
        """Whether all clients may use the same endpoints."""
        return self.serving.outside is None and self.serving.affinity_timeout_s is None

    def excluded(self, side: Side, endpoint: SocketAddress, at: Span) -> Sure:
        """Return whether no client is sent to an endpoint at a moment, unless all are excluded."""
        known = side.excluded.get(endpoint)
        return Sure.NO if known is None else known.is_out(at)

    def is_full(self, endpoint: SocketAddress) -> Sure:
        """Return whether an endpoint is at its limit."""
        limit, (least, most) = self.limit, self.loads.of(endpoint)
        if limit is None or most < limit:
            return Sure.NO
        return Sure.YES if least >= limit else Sure.EITHER

    def weight_of(self, endpoint: SocketAddress, at: Span) -> Span:
        """Return the least and the most that an endpoint's weight may be."""
        weight = float(dict(self.serving.weights).get(endpoint, 1))
        began, seconds = self.began.get(endpoint), self.serving.handling.slow_start_s
        if began is None or not seconds:
            return weight, weight
        # It grows in steps.
        least = (at[0] - began[1]) / seconds - 1 / _SLOW_START_STEPS - 0.001
        most = (at[1] - began[0]) / seconds
        shares = [min(1.0, max(SLOW_START_FLOOR, share)) for share in (least, most)]
        return weight * shares[0], weight * shares[1]

    def serves(self, client: str, endpoint: SocketAddress) -> bool:
        """Return whether new connections of a client may use an endpoint, ejected or not."""
        return endpoint in self.side_of(client).first

    def options(
        self, client: str, at: Span, tried: Collection[SocketAddress] = ()
    ) -> list[Option] | None:
        """Return what a client may get now, which is one thing unless a moment is unsure.

        Args:
            tried: Endpoints whose dials have failed for this connection.

        Returns:
            None if too much is unsure.
        """
        side = self.side_of(client)
        if len(tried) >= MOST_TRIED:
            is_full = any(self.is_full(e) is not Sure.NO for e in side.endpoints if e not in tried)
            # It may wait for room at one of those that it hasn't tried.
            kinds = (Kind.NONE, Kind.WAIT) if is_full else (Kind.NONE,)
            return [Option(kind, frozenset()) for kind in kinds]
        pin, pin_is = self._pin_of(side, client, at)
        facts: dict[tuple[str, SocketAddress | None], Sure] = {("pin", None): pin_is}
        limit = self.limit
        for endpoint in side.endpoints:
            known = side.excluded.get(endpoint)
            if known is not None:
                facts["out", endpoint] = known.is_out(at)
                facts["quiet", endpoint] = known.is_quiet(at)
            if limit is not None:
                facts["full", endpoint] = self.is_full(endpoint)
        unsure = [key for key, sure in facts.items() if sure is Sure.EITHER]
        if len(unsure) > _MOST_UNSURE:
            return None
        sure = {key for key, each in facts.items() if each is Sure.YES}
        found = {
            _choose(side, {*sure, *itertools.compress(unsure, world)}, pin, frozenset(tried))
            for world in itertools.product((True, False), repeat=len(unsure))
        }
        return sorted(found, key=lambda option: (option.kind.value, sorted(option.endpoints)))

    def _pin_of(self, side: Side, client: str, at: Span) -> tuple[SocketAddress | None, Sure]:
        pin, timeout_s = side.pins.get(client), self.serving.affinity_timeout_s
        if pin is None or timeout_s is None or pin.endpoint not in side.endpoints:
            return None, Sure.NO
        is_valid = _before(at, _later(pin.used, timeout_s))
        if is_valid is Sure.YES and not pin.is_sure:
            is_valid = Sure.EITHER
        return pin.endpoint, is_valid


def _choose(
    side: Side,
    facts: Collection[tuple[str, SocketAddress | None]],
    pin: SocketAddress | None,
    tried: frozenset[SocketAddress],
) -> Option:
    """Return what a client gets where these facts hold."""
    out = {e for e in side.endpoints if ("out", e) in facts}
    full = {e for e in side.endpoints if ("full", e) in facts}
    is_pinned = ("pin", None) in facts and pin not in tried and pin not in out
    for level in side.levels:
        if is_pinned and pin is not None and pin in level:
            # Affinity is a promise: the client waits for its endpoint.
            kind = Kind.WAIT if pin in full else Kind.PINNED
            return Option(kind, frozenset() if pin in full else frozenset({pin}), level)
        usable = [e for e in level if e not in out and e not in tried]
        if usable:
            free = frozenset(e for e in usable if e not in full)
            # One that is ejected, or of a lower priority, isn't used instead of one at its limit.
            return Option(Kind.TURN if free else Kind.WAIT, free, level)
    for level in side.levels:
        last = frozenset(
            e for e in level if e not in tried and e not in full and ("quiet", e) not in facts
        )
        if last:
            return Option(Kind.LAST, last, level)
    # It waits for room if one that is ejected is at its limit.
    is_full = any(e in full and e not in tried for e in side.endpoints)
    return Option(Kind.WAIT if is_full else Kind.NONE, frozenset())


def _failed(side: Side, endpoint: SocketAddress, at: Span, *, is_silent: bool) -> Sure:
    known = side.excluded.get(endpoint)
    quiet = _later(at, QUIET_S)
    if known is None:
        until, lasts = _later(at, FIRST_S), (FIRST_S, FIRST_S)
        side.excluded[endpoint] = Exclusion(until, lasts, is_silent, quiet)
        return Sure.YES
    known.is_silent, known.quiet = is_silent, quiet
    is_early = _before(at, known.until)
    if not known.is_sure:
        # It is the first ejection, or one that is as long as this one, or another one after it.
        known.is_sure = True
        longest = known.lasts[1]
        if is_early is not Sure.YES:
            longest = min(2 * longest, LONGEST_S)
            known.lasts = FIRST_S, longest
        least = at[0] + FIRST_S if is_early is Sure.NO else known.until[0]
        most = at[1] + (FIRST_S if is_early is Sure.YES else longest)
        known.until = least, max(known.until[1], most)
        return Sure.EITHER
    if is_early is Sure.YES:
        # Of many dials that were under way.
        return Sure.NO
    longer = min(2 * known.lasts[0], LONGEST_S), min(2 * known.lasts[1], LONGEST_S)
    until = at[0] + longer[0], at[1] + longer[1]
    if is_early is Sure.NO:
        known.lasts, known.until = longer, until
        return Sure.YES
    known.lasts, known.until = (known.lasts[0], longer[1]), (known.until[0], until[1])
    return Sure.EITHER


def _starting(
    began: dict[SocketAddress, Span], seconds: float, at: float
) -> Iterator[tuple[SocketAddress, Span]]:
    """Yield those that haven't all of their weights yet, or may not have."""
    for endpoint, (earliest, latest) in began.items():
        if at < latest + seconds + _CLOCK_S:
            is_over = at > earliest + seconds - _CLOCK_S
            yield endpoint, (-math.inf if is_over else earliest, latest)


def _later(at: Span, seconds: float) -> Span:
    return at[0] + seconds, at[1] + seconds


def _before(at: Span, end: Span) -> Sure:
    """Return whether a moment is before another one."""
    if at[1] < end[0]:
        return Sure.YES
    return Sure.NO if at[0] >= end[1] else Sure.EITHER


def each_endpoint(options: Collection[Option]) -> Iterator[SocketAddress]:
    """Yield what any of the options allows."""
    for option in options:
        yield from option.endpoints
