"""Chooses which changes a round applies: namespaces take turns, and busy namespaces wait.

    newest snapshot ──▶ differences ──┬─▶ the snapshot of this round
                                      └─▶ waiting: these Services stay as planned before

Rule 1: a round applies the changes of each namespace that fit into a turn, at least the changes of
one Service; Services that have waited longest are first. A Service waits for at most one turn of
each other namespace.
Rule 2: after a long turn a namespace waits as long as the turn took; the wait doubles if more has
changed during it. Services with few endpoints are exempt.
Rule 3: removed ports and addresses never wait, nor do changed source ranges: another Service may be
assigned the addresses, and a client may no longer be admitted. Additions wait like endpoints.
Rule 4: durations are computed from sizes, so that the order is reproducible.
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

# The time that a round takes on a slow core, including listeners and workers: for each endpoint
# (with preferences, hints or a policy), and for each port.
_ENDPOINT_S = 1e-5
_PORT_S = 1e-4
# The additional time for a new port, which includes opening its listener.
_OPEN_S = 2e-4
# The time that a round takes per slice, regardless of its size; planning takes 1 µs on a fast core.
_SLICE_S = 2e-6
# The time that a round takes per element of the kernel path, including its slots.
_ELEMENT_S = 1e-5
# The length of a namespace's turn in one round; a change may wait for two turns.
_TURN_S = 0.05
# A Service that takes less time than this, such as one with a hundred endpoints, never waits.
_LEAST_S = 1e-3


class ChangeTurns:
    """The turns of one proxy's changes, which decide the changes that a round applies.

    Args:
        clock: Returns monotonic seconds.
        elements: Returns the number of kernel path elements that a Service's change may write.
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
        """The waiting Services, and the monotonic seconds from which a round may take them."""

    @property
    def waiting(self) -> Container[ServiceKey]:
        return self._waiting.keys()

    @property
    def next_in_s(self) -> float:
        """Seconds until a round may take a waiting Service; infinite if none waits."""
        return min(self._waiting.values(), default=math.inf) - self._clock()

    def take(self, have: Snapshot | None, want: Snapshot) -> Snapshot:
        """Choose a round's changes; return a snapshot with only these, or ``want`` if none waits.

        Args:
            have: The snapshot of the last round; None before the first, which takes all changes.
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
        """Yield each waiting Service and when its wait ends (monotonic); record the turns taken."""
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
        # Call forget() once for all Services, because it visits each namespace that has had a turn.
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
    # The time per port includes one address of each family, so count addresses in pairs.
    ports_s = _PORT_S * ports + _OPEN_S * max(0, new_ports)
    return ports_s * max(1, addresses // 2) + _SLICE_S * len(slices) + judged_s


def _without_what_left(state: ServiceState, new: Service) -> ServiceState:
    """Return a waiting Service without removed ports and addresses, with its new source ranges.

    If another proxy serves it now, return its new version without endpoints.
    """
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
