"""Which changes a round takes: turns by namespace, and waits for what changes all the time.

    newest snapshot ──▶ what differs ──┬─▶ the snapshot of this round
                                       └─▶ waits: its Services stay as they were planned

Rule 1: a round takes as much of each namespace as a turn holds, and at least one Service; what has
waited longest goes first. So the Services of others wait for one turn of each namespace.
Rule 2: after a turn that took long a namespace waits: for as long as that took, then twice as long
each time that more has changed meanwhile. Services with few endpoints don't wait for that.
Rule 3: what a Service has no longer never waits, and neither do its source ranges: another one may
get its addresses, or a client must not get in. What it has newly waits as its endpoints do.
Rule 4: how long something takes is computed from its size, so that the order is the same each time.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Container, Iterator
from dataclasses import replace

from ...clocks import Clocks
from ...cluster import PersistentMap, ServiceState, Slices, Snapshot, differing_keys
from ...model import Service, ServiceKey
from ...plan.bounds import ENDPOINTS_OF_SERVICE_MAX
from ...turns import Turns

# On a slow core, with what listeners and workers do; where preferences, hints or a policy decide.
_ENDPOINT_S = 1e-5
_PORT_S = 1e-4
# More of a new one, whose listener opens.
_OPEN_S = 2e-4
# Of each slice, whatever it lists: it is read for the plan, in 1 µs on a fast core.
_SLICE_S = 2e-6
# Of the kernel path, with what fills its slots.
_ELEMENT_S = 1e-5
# Of a namespace in one round: a change may wait for two.
_TURN_S = 0.05
# Of a Service, for which nothing waits: a hundred endpoints.
_LEAST_S = 1e-3


class ChangeTurns:
    """Chooses what the rounds of one proxy take.

    Args:
        clock: Returns monotonic seconds.
        elements: Returns how many elements of the kernel path a change of a Service may write.
    """

    def __init__(
        self,
        clock: Callable[[], float] = Clocks.monotonic,
        elements: Callable[[ServiceState], int] = lambda _state: 0,
    ) -> None:
        self._clock = clock
        self.elements = elements
        self._turns = Turns[str]()
        self._waiting: dict[ServiceKey, float] = {}
        """Services that wait, and from which monotonic time on they may be taken."""

    @property
    def waiting(self) -> Container[ServiceKey]:
        return self._waiting.keys()

    @property
    def next_in_s(self) -> float:
        """Seconds until something that waits may be taken; infinite if nothing waits."""
        return min(self._waiting.values(), default=math.inf) - self._clock()

    def take(self, have: Snapshot | None, want: Snapshot) -> Snapshot:
        """Return what a round takes of the newest snapshot: that itself, if nothing waits.

        Args:
            have: What the last round took; None: there was none.
        """
        now = self._clock()
        if have is None:
            return want
        self._waiting = waiting = dict(self._that_wait(have, want, now))
        if not waiting:
            return want
        services = want.services
        if not isinstance(services, PersistentMap):
            services = PersistentMap[ServiceKey, ServiceState]().changed(services)
        put = {
            key: _without_what_left(have.services[key], want.services[key].service)
            for key in waiting
            if key in have.services
        }
        return replace(want, services=services.changed(put, waiting.keys()))

    def _that_wait(
        self, have: Snapshot, want: Snapshot, now: float
    ) -> Iterator[tuple[ServiceKey, float]]:
        """Yield what this round doesn't take, and when it may be taken; note what it takes."""
        changed = differing_keys(have.services, want.services)
        first = [key for key in self._waiting if key in changed]
        left: dict[str, float] = defaultdict(lambda: _TURN_S)
        took: dict[str, float] = defaultdict(float)
        for key in (*first, *changed.difference(first)):
            new, namespace = want.services.get(key), key.namespace
            if new is None:
                continue
            if left[namespace] <= 0:
                yield key, now
                continue
            cost_s = _cost_s(have.services.get(key), new) + _ELEMENT_S * self.elements(new)
            due = self._turns.due(namespace, now) if cost_s >= _LEAST_S else now
            if due > now:
                yield key, due
            elif left[namespace] < min(cost_s, _TURN_S):
                left[namespace] = 0.0
                yield key, now
            else:
                left[namespace] -= cost_s
                if cost_s >= _LEAST_S:
                    took[namespace] += cost_s
        # Once for all of them: it looks at each namespace that had a turn.
        self._turns.forget(now)
        for namespace, took_s in took.items():
            self._turns.took(namespace, took_s, now)


def _cost_s(old: ServiceState | None, state: ServiceState) -> float:
    service = state.service
    ports = len(service.ports)
    new_ports = ports - len(old.service.ports) if old else ports
    addresses = len(service.addresses)
    slices = Slices.of(state.slices)
    endpoints = max(1, ports) * slices.endpoint_count
    judged_s = _ENDPOINT_S * min(endpoints, ENDPOINTS_OF_SERVICE_MAX)
    # One address of each family is in the time of a port.
    ports_s = _PORT_S * ports + _OPEN_S * max(0, new_ports)
    return ports_s * max(1, addresses // 2) + _SLICE_S * len(slices) + judged_s


def _without_what_left(state: ServiceState, new: Service) -> ServiceState:
    """Return a Service that waits, without what another one may have as soon as it changes."""
    old = state.service
    if new.proxy_name != old.proxy_name:
        return ServiceState(new, ())
    numbers = {(port.port, port.protocol) for port in new.ports}
    node_ports = {(port.node_port, port.protocol) for port in new.ports}
    kept = replace(
        old,
        ports=tuple(
            port if (port.node_port, port.protocol) in node_ports else replace(port, node_port=0)
            for port in old.ports
            if (port.port, port.protocol) in numbers
        ),
        cluster_ips=_both(old.cluster_ips, new.cluster_ips),
        external_ips=_both(old.external_ips, new.external_ips),
        load_balancer_ips=_both(old.load_balancer_ips, new.load_balancer_ips),
        load_balancer_source_ranges=new.load_balancer_source_ranges,
        health_check_node_port=(
            old.health_check_node_port
            if old.health_check_node_port == new.health_check_node_port
            else 0
        ),
    )
    return state if kept == old else replace(state, service=kept)


def _both(old: tuple[str, ...], new: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(ip for ip in old if ip in new)
