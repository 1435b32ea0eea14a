"""The cluster's objects, their history, and which states may be in force at a moment."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from .plan import LOOPBACK_IP, NODE_IP, Object
from .truth import HOST, ClaimReader, Key, Truth, key_of

_FREE_NUMBERS = range(31900, 32000)
"""Health check node ports that no plan names."""


class Cluster:
    """The objects at the API server, in all their states."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self.objects: dict[Key, Object] = {HOST: {"addresses": (LOOPBACK_IP, NODE_IP)}}
        self.states: list[tuple[float, Truth]] = []
        """Each from its time on."""
        self._reader = ClaimReader()
        self.watchers: list[Callable[[Object, bool], None]] = []

    def put(self, *items: Object) -> None:
        """Create objects, or replace them."""
        if not items:
            self._note()
        for item in map(self._with_own_number, items):
            self.objects[key_of(item)] = item
            self._note()
            for watcher in self.watchers:
                watcher(item, False)

    def _with_own_number(self, item: Object) -> Object:
        """Return a Service with a health check node port that no other one has.

        A server gives a number to one Service at a time.
        """
        spec = item["spec"] if item["kind"] == "Service" else {}
        if not (number := spec.get("healthCheckNodePort", 0)):
            return item
        taken = {
            other["spec"].get("healthCheckNodePort", 0)
            for key, other in self.objects.items()
            if key[0] == "Service" and key != key_of(item)
        }
        free = next(each for each in (number, *_FREE_NUMBERS) if each not in taken)
        return {**item, "spec": {**spec, "healthCheckNodePort": free}}

    @property
    def addresses(self) -> tuple[str, ...]:
        """Those of the node."""
        found: tuple[str, ...] = self.objects[HOST]["addresses"]
        return found

    def move(self, addresses: tuple[str, ...]) -> None:
        """Have the node other addresses, which the API server doesn't have."""
        self.objects[HOST] = {"addresses": addresses}
        self._note()

    def delete(self, key: Key) -> None:
        """Delete an object, if it exists."""
        item = self.objects.pop(key, None)
        if item is not None:
            self._note()
            for watcher in self.watchers:
                watcher(item, True)

    def _note(self) -> None:
        self.states.append((self._now(), Truth(self.objects, self._reader)))

    @property
    def last(self) -> Truth:
        return self.states[-1][1]

    def between(self, since: float, until: float) -> Iterator[Truth]:
        """Yield the states that were there at some moment from one time to another.

        The node's addresses and objects are known from different sources, so each of the addresses
        is combined with each state.
        """
        states = list(self._between(since, until))
        hosts = {id(truth.host): truth.host for truth in states}
        if len(hosts) == 1:
            yield from states
        else:
            yield from (truth.at(host) for truth in states for host in hosts.values())

    def _between(self, since: float, until: float) -> Iterator[Truth]:
        for number, (at, truth) in enumerate(self.states):
            ends = self.states[number + 1][0] if number + 1 < len(self.states) else None
            if at <= until and (ends is None or ends >= since):
                yield truth


class Floors(NamedTuple):
    """Times up to which changes are in force."""

    all: float
    losses: float
    """What a Service has no longer, and its source ranges."""


class Freshness:
    """Up to when changes are certainly in force.

    Args:
        bound_s: A change is in force after that time, in which nothing is disturbed.
        prompt_s: So is one that never waits for its turn.
    """

    def __init__(self, now: Callable[[], float], bound_s: float, prompt_s: float) -> None:
        self._now = now
        self._bound_s = bound_s
        self.calm_at = now()
        """When a disturbance last ended."""
        self._floors = {bound: now() for bound in (bound_s, prompt_s)}
        self._prompt_s = prompt_s

    def disturb(self, until: float | None = None) -> None:
        """Note that changes may be late until a time, by default only now."""
        self._follow()
        self.calm_at = max(self.calm_at, self._now() if until is None else until)

    def go_back(self, to: float) -> None:
        """Note that an older state may be in force from now on, until changes are again."""
        self.disturb()
        self._floors = {bound: min(floor, to) for bound, floor in self._floors.items()}

    def _follow(self) -> None:
        now = self._now()
        for bound, floor in self._floors.items():
            if now - self.calm_at >= bound:
                self._floors[bound] = max(floor, now - bound)

    def floor(self) -> float:
        """Return a time: what was changed up to it is in force now."""
        self._follow()
        return self._floors[self._bound_s]

    def floors(self) -> Floors:
        """Return that time, and the one of what never waits."""
        self._follow()
        return Floors(self._floors[self._bound_s], self._floors[self._prompt_s])

    @property
    def is_calm(self) -> bool:
        """Whether nothing was disturbed for so long that all that is older is in force."""
        return self._now() - self.calm_at >= self._bound_s
