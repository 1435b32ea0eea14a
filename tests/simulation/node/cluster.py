"""The cluster's objects, their history, and which states may be applied at a moment."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from .claims import ClaimReader, Dialled, Key, key_of
from .plan import Object, Settings
from .truth import HOST, Truth

_HEALTH_PORT = "healthCheckNodePort"


class Cluster:
    """The objects at the API server, in all their states."""

    def __init__(
        self, now: Callable[[], float], addresses: tuple[str, ...], settings: Settings
    ) -> None:
        self._now = now
        self.objects: dict[Key, Object] = {HOST: {"addresses": addresses}}
        self.states: list[tuple[float, Truth]] = []
        """Each state, with the time from which it exists."""
        self._times: list[float] = []
        self._reader = ClaimReader(settings)
        self.dialled: dict[Dialled, None] = {}
        """All addresses that Services ever had."""
        self.watchers: list[Callable[[Object, bool], None]] = []

    def put(self, *items: Object) -> None:
        """Create objects, or replace them."""
        if not items:
            self._note()
        for each in items:
            item = self._allocated(each)
            self.objects[key_of(item)] = item
            self._note()
            for watcher in self.watchers:
                watcher(item, False)

    def _allocated(self, item: Object) -> Object:
        """Return an object as the server stores it: without a health check port in use."""
        number = item.get("spec", {}).get(_HEALTH_PORT)
        others = (each for key, each in self.objects.items() if key != key_of(item))
        if not number or all(number != _health_port(each) for each in others):
            return item
        spec = {name: value for name, value in item["spec"].items() if name != _HEALTH_PORT}
        return {**item, "spec": spec}

    @property
    def addresses(self) -> tuple[str, ...]:
        """The node's addresses."""
        found: tuple[str, ...] = self.objects[HOST]["addresses"]
        return found

    def move(self, addresses: tuple[str, ...]) -> None:
        """Change the node's own addresses, which the API server doesn't list."""
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
        self._times.append(self._now())
        self.dialled.update(dict.fromkeys(self.last.frontends))

    @property
    def last(self) -> Truth:
        return self.states[-1][1]

    def between(self, since: float, until: float) -> Iterator[Truth]:
        """Yield the states that existed at some moment between two times.

        The node's addresses and objects are known from different sources, so each set of addresses
        is combined with each state of the objects.
        """
        states = self._between(since, until)
        hosts = {id(truth.host): truth.host for truth in states}
        if len(hosts) == 1:
            yield from states
        else:
            yield from (truth.at(host) for truth in states for host in hosts.values())

    def _between(self, since: float, until: float) -> Sequence[Truth]:
        # Start with the last state before the period.
        first = bisect_left(self._times, since) - 1
        after = bisect_right(self._times, until)
        return [truth for _, truth in self.states[max(0, first) : after]]


def in_parts(states: Sequence[Truth]) -> Iterator[Truth]:
    """Yield the states, and states that combine one state's Services with another's other objects.

    Each kind of objects has its own watch: nothing orders the events of two watches, and after a
    failure each kind's watch is restored at a different time.
    """
    yield from states
    services = {truth.parts[0]: truth for truth in states}
    rests = {truth.parts[1]: truth for truth in states}
    there = {truth.parts for truth in states}
    for of_services, other in services.items():
        for of_rest, truth in rests.items():
            if (of_services, of_rest) not in there:
                yield truth.with_services_of(other)


def _health_port(item: Object) -> int:
    return int(item.get("spec", {}).get(_HEALTH_PORT, 0))


class Floors(NamedTuple):
    """Times up to which changes must have been applied."""

    all: float
    losses: float
    """The time for addresses that a Service has lost, and for its source ranges."""


class Freshness:
    """The time up to which changes must have been applied.

    Args:
        bound_s: The time within which an undisturbed change is applied.
        prompt_s: The same for a change that doesn't wait for its namespace's turn.
    """

    def __init__(self, now: Callable[[], float], bound_s: float, prompt_s: float) -> None:
        self._now = now
        self.calm_at = now()
        """When the last disturbance ended."""
        self._floors = {bound: now() for bound in (bound_s, prompt_s)}
        self.bound_s, self.prompt_s = bound_s, prompt_s

    def disturb(self, until: float | None = None) -> None:
        """Record that changes may be late until a time, by default until now."""
        self._follow()
        self.calm_at = max(self.calm_at, self._now() if until is None else until)

    def go_back(self, to: float) -> None:
        """Record that states since an earlier time may be applied for a while."""
        self.disturb()
        self._floors = {bound: min(floor, to) for bound, floor in self._floors.items()}

    def _follow(self) -> None:
        now = self._now()
        for bound, floor in self._floors.items():
            if now - self.calm_at >= bound:
                self._floors[bound] = max(floor, now - bound)

    def floor(self) -> float:
        """Return the time up to which changes must have been applied."""
        self._follow()
        return self._floors[self.bound_s]

    def floors(self) -> Floors:
        """Return the times for all changes, and for changes that never wait for a turn."""
        self._follow()
        return Floors(self._floors[self.bound_s], self._floors[self.prompt_s])

    @property
    def is_calm(self) -> bool:
        """Whether the last disturbance is so long ago that all changes before it are applied."""
        return self._now() - self.calm_at >= self.bound_s
