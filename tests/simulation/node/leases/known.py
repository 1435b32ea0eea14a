"""What nodes may know by now, and what has changed since."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..api_exchange import Exchange
from ..api_requests import target_of
from .truth import Rights, Wish, rights_to, wish_of
from .workloads import Workload

if TYPE_CHECKING:
    from .world import World

# From a write to what a node does of it, and for an attempt to scale that has begun before.
_KNOWN_S = 3.0
_ATTEMPT_S = 16.0
# An agent that may not write Events of a namespace sends none for so long.
_FORBIDDEN_S = 600.0


class Known:
    """When something was disturbed, and when objects changed."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.calm_at = world.began
        """Nothing is disturbed any more from then on."""
        self.rough_since = world.began
        """When the last disturbances began."""
        self._changed_at: dict[str, float] = {}
        """By what it is about: a Service, a namespace of autoscalers and budgets, a Node."""
        self._deleted_at: dict[str, list[float]] = {}
        """By the Service."""
        self._before: dict[str, list[tuple[float, Wish | None]]] = {}
        """What Services asked for until a time."""
        self._forbidden_at: dict[tuple[str, str], float] = {}
        """When Events were forbidden, by node and namespace."""

    def answered(self, exchange: Exchange) -> None:
        """Note a response that has ended, or broken off."""
        target = target_of(exchange.path)
        if target.resource == "events" and exchange.code == 403 and not exchange.error:
            self._forbidden_at[exchange.client.node, target.namespace] = self._world.now

    def sends_no_events(self, node: str, service: str) -> bool:
        """Return whether a node's agent was forbidden to write Events of a Service's namespace."""
        at = self._forbidden_at.get((node, service.partition("/")[0]), float("-inf"))
        is_same = self._world.node(node).started_at < at
        return is_same and self._world.now - at < _FORBIDDEN_S

    def disturb(self, seconds: float) -> None:
        """Note that requests or nodes may fail for so long."""
        now = self._world.now
        if now > self.calm_at + _KNOWN_S:
            self.rough_since = now
        self.calm_at = max(self.calm_at, now + seconds)

    @property
    def is_calm(self) -> bool:
        """Whether nodes know what was written a while ago."""
        return self._world.now > self.calm_at + _KNOWN_S

    @property
    def floor(self) -> float:
        """The time up to which all nodes know what was written."""
        now = self._world.now - _KNOWN_S - self._world.plan.lag_s
        return now if self.is_calm else min(now, self.rough_since - _KNOWN_S)

    def changes(self, about: str) -> None:
        """Note that something changes now."""
        self._changed_at[about] = self._world.now

    def service_is_deleted(self, key: str) -> None:
        """Note that a Service is about to be deleted."""
        self.service_changes(key)
        self._deleted_at.setdefault(key, []).append(self._world.now)

    def service_changes(self, key: str) -> None:
        """Note that a Service is about to change."""
        self._before.setdefault(key, []).append((self._world.now, self.wishes.get(key)))
        self.changes(key)

    def was_deleted(self, key: str, since: float) -> bool:
        """Return whether a Service was deleted since then."""
        return any(at >= since for at in self._deleted_at.get(key, ()))

    def has_changed(self, about: str, within_s: float = _ATTEMPT_S) -> bool:
        """Return whether something may be known as it was before, or was so recently."""
        at = self._changed_at.get(about, float("-inf"))
        return at > min(self.floor, self._world.now - within_s)

    def changed_at(self, about: str) -> float:
        return self._changed_at.get(about, self._world.began)

    # -- Services ----------------------------------------------------------------------------------

    @property
    def wishes(self) -> dict[str, Wish]:
        """What Services ask for now."""
        found = map(wish_of, self._world.etcd.items("services"))
        return {wish.key: wish for wish in found}

    def rights(self, workload: Workload) -> Rights:
        """Return who has to do with a workload now."""
        spec = workload.spec
        return rights_to(self.wishes, spec.namespace, spec.text, dict(spec.labels))

    def have_services_changed(self, namespace: str) -> bool:
        """Return whether a node may act on other Services of a namespace than those of now."""
        return any(self.has_changed(key) for key in self._before if key.startswith(f"{namespace}/"))

    @property
    def names_workloads(self) -> bool:
        """Whether a Service names a workload, or may be known as one."""
        floor = min(self.floor, self._world.now - _ATTEMPT_S)
        before = [w for all_ in self._before.values() for at, w in all_ if at > floor]
        return any(w is not None and w.wake and w.hold_s for w in (*self.wishes.values(), *before))
