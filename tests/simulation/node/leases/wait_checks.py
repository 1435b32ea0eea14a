"""What clients that wait may expect: pods are woken for them, and nothing holds them for ever."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from .clients import CONNECTED, WAITING, Client, named
from .truth import Asked
from .workloads import READY, Workload

if TYPE_CHECKING:
    from .checks import Checks
    from .world import World

ORACLES = (
    "woken in time",
    "served after a promise",
    "served after a round",
    "Event of a client that waits",
)
# Pods end within 10 s, another attempt follows after 5 s, and a look takes a second.
_WOKEN_S = 22.0
# Attempts that fail are up to a minute apart.
_TROUBLE_S = 66.0
_RELEASED_S = 4.0
# What a node promises lasts 20 s.
_PROMISED_S = 23.0
# Until a node knows of a pod that is listed.
_LISTED_S = 5.0


class WaitChecks:
    """The oracles of waits."""

    def __init__(self, checks: Checks, world: World) -> None:
        self._checks = checks
        self._world = world
        self.trouble_at: dict[Workload, float] = {}
        """When someone else scaled a workload, or ended its pods."""
        self._released: dict[str, tuple[float, str]] = {}
        """Services whose round ended without effect, when that was last written, and its number."""
        self._ended_at: dict[str, float] = {}
        """When each round was over, by its number."""
        self._unheard: dict[tuple[str, str], float] = {}
        """By node and Service: until when a promise may hold, as its watch was broken off when that
        round ended."""

    def trouble(self, workload: Workload) -> None:
        """Note that someone else has scaled a workload."""
        self.trouble_at[workload] = self._world.now

    def moved(self, client: Client, before: str) -> None:
        """Judge the end of a wait."""
        if before == WAITING and client.state == CONNECTED:
            self._checks.judge("woken in time", True, "")

    def has_event(self, service: str, reason: str) -> bool:
        """Return whether an Event of a reason is about a Service."""
        events = self._world.etcd.events.values()
        return any(e["reason"] == reason and about(e) == service for e in events)

    def released(self, asked: Asked) -> bool:
        """Follow that a round is over; the holder writes it again with each change of its sums.

        Returns:
            Whether this is written for the first time.
        """
        is_first = asked.number not in self._ended_at
        if is_first:
            self._ended_at[asked.number] = self._world.now
        for node, key in self._checks.answers.items():
            for service in key.services if key.number == asked.number else ():
                if is_first and node not in self._hearing():
                    began = self._checks.rounds_at.get(asked.number, self._world.now)
                    self._unheard[node, service] = began + _PROMISED_S
                if service not in asked.services:
                    self._released[service] = self._world.now, asked.number
        return is_first

    def look(self) -> None:
        """Judge those that wait now."""
        for client in self._world.clients:
            if client.state == WAITING and not self._checks.is_of_dead_agent(client):
                self._look_at(client)
        self._look_at_released()

    def _workload_of(self, service: str) -> Workload | None:
        for workload in self._world.workloads.all.values():
            if any(wish.key == service for wish in self._checks.known.rights(workload).asked):
                return workload
        return None

    def _look_at(self, client: Client) -> None:
        world, known = self._world, self._checks.known
        workload = self._workload_of(client.service)
        if workload is None:
            return
        plan, now = world.plan, world.now
        takes_s = plan.start_s + plan.end_s + 2 * plan.slices_s + 2 * plan.controller_s + plan.lag_s
        node = world.node(client.node)
        until = max(
            client.waits_since + _WOKEN_S + takes_s,
            known.calm_at + _TROUBLE_S + takes_s,
            known.changed_at(client.service) + _TROUBLE_S + takes_s,
            self.trouble_at.get(workload, world.began) + _TROUBLE_S + takes_s,
            node.started_at + _TROUBLE_S + takes_s,
        )
        if now > until:
            since = now - client.waits_since
            self._checks.judge("woken in time", False, f"{client} has waited for {since:.1f} s")
        self._look_at_ready(client, workload)

    def _look_at_ready(self, client: Client, workload: Workload) -> None:
        """Judge a client that waits although a pod is ready, whatever becomes of requests."""
        world, since = self._world, client.waits_since
        sleep = self._checks.asleep.get(workload)
        worker, node = client.worker, world.node(client.node)
        if node.started_at > since - _LISTED_S or self._checks.known.has_changed(client.service):
            return
        if worker is None or worker.busy_until > world.now - _LISTED_S:
            return
        known_at = min(self._checks.known.floor, since - _LISTED_S)
        ready = [pod for pod in workload.pods if pod.state == READY and pod.listed_at < known_at]
        if sleep is not None:
            ready = [pod for pod in ready if pod not in sleep.pods]
        text = f"{client} has waited for {world.now - since:.1f} s, and {named(ready)} is ready"
        is_late = bool(ready) and world.now - since > _PROMISED_S
        self._checks.judge("served after a promise", not is_late, text)

    def _look_at_released(self) -> None:
        """Judge Services whose clients are served again, because a round had no effect."""
        world, known = self._world, self._checks.known
        for service, (at, number) in list(self._released.items()):
            if world.now - at < _RELEASED_S:
                continue
            del self._released[service]
            workload = self._workload_of(service)
            if workload is None or known.calm_at > at - _RELEASED_S:
                continue
            ready = [p for p in workload.pods if p.state == READY and p.listed_at < at]
            if not ready or workload in self._checks.asleep:
                continue
            waiting = [
                c
                for c in world.clients
                if (c.state, c.service) == (WAITING, service) and c.waits_since < at
                # Its worker learns nothing any more.
                if not self._checks.is_of_dead_agent(c)
            ]
            text = f"{named(waiting)} waits, and the round of {service} is over"
            deaf = "its node's watch was broken off, and its promise holds"
            excuses = {deaf: self._is_promise_kept(waiting, number)}
            self._checks.judge("served after a round", not waiting, text, excuses)

    def _is_promise_kept(self, clients: Iterable[Client], number: str) -> bool:
        """Return whether the nodes of clients haven't heard that a round is over, and may wait.

        A watch that breaks off is begun again two seconds later, or later if the server fails; if
        another round has begun by then, the node doesn't learn how this one has ended. Nor does it
        where the holder has begun another one without ending it. What is promised ends in time.
        """
        world, checks = self._world, self._checks
        unended = [began for one, began in checks.rounds_at.items() if one not in self._ended_at]
        if any(world.now <= began + _PROMISED_S for began in unended):
            return True
        until = checks.rounds_at.get(number, world.began) + _PROMISED_S
        if world.now > until or checks.known.calm_at <= self._ended_at[number] - _RELEASED_S:
            return False
        hearing = self._hearing()
        return all(
            client.node not in hearing
            or world.now <= self._unheard.get((client.node, client.service), world.began)
            for client in clients
        )

    def _hearing(self) -> set[str]:
        """Return the nodes that have a watch of Leases."""
        return {
            watch.exchange.client.node
            for watch in self._world.server.watches
            if watch.wanted.resource == "leases"
        }


def about(event: object) -> str:
    """Return the Service that an Event is about."""
    assert isinstance(event, dict)
    regarding = event.get("regarding") or {}
    return f"{regarding.get('namespace')}/{regarding.get('name')}"
