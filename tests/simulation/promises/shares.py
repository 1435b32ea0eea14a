"""Clients are balanced over endpoints by their Service's policy; with affinity, they keep one.

    round-robin           each endpoint has its share of any number of picks
    least-connections     no endpoint has fewer connections for its weight
    power-of-two-choices  another endpoint has at least as many connections
    source-hash, affinity a client has the endpoint that it had before

Judged only while endpoints are fine and the Service doesn't change.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from typing import TYPE_CHECKING

from userspace_proxy.model import Balance, SocketAddress
from userspace_proxy.model.serving import Serving

from ..serving_rules import first, is_inside
from .promise import Promise

if TYPE_CHECKING:
    from ..clients import Client
    from ..services import Service
    from ..world import World

# The number of picks by which an endpoint may exceed or miss its weighted share.
_OFF = 2.0

Key = tuple["Service", bool]
"""A Service, and whether its clients are inside."""


class Shares(Promise):
    """Judges the balancing of one run."""

    name = "shares"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._turns: dict[Key, Counter[SocketAddress]] = {}
        self._used: dict[tuple[Service, str], tuple[SocketAddress, float]] = {}
        """The endpoint of each client, and the time of its last use."""

    def changing(self, service: Service, now: Serving) -> None:
        """Restart the counts; drop removed endpoints' entries, or all if the settings change."""
        before = service.serving
        settings = [(s.affinity_timeout_s, s.inside, s.outside is None) for s in (before, now)]
        keeps_pins = before.affinity_timeout_s is not None and settings[0] == settings[1]
        self._forget(service, now.all_endpoints if keeps_pins else ())

    def _forget(self, service: Service, kept: Collection[SocketAddress] = ()) -> None:
        """Restart the counts, and drop all clients that have none of these endpoints."""
        self._turns = {key: turns for key, turns in self._turns.items() if key[0] is not service}
        self._used = {
            key: used
            for key, used in self._used.items()
            if key[0] is not service or used[0] in kept
        }

    def chosen(self, client: Client, endpoint: SocketAddress) -> None:
        """Judge the choice of an endpoint before it is dialled."""
        service, serving = client.service, client.service.serving
        if self.world.is_closed:
            return
        own = first(serving, client.ip)
        if not service.is_steady or client.dials or endpoint not in own:
            self._forget(service)
            return
        if serving.affinity_timeout_s is not None:
            self._judge_pin(client, endpoint, own, float(serving.affinity_timeout_s))
        elif serving.handling.max_connections is None and not serving.handling.slow_start_s:
            self._judge_turn(client, endpoint, own)

    def _judge_pin(
        self, client: Client, endpoint: SocketAddress, own: tuple[SocketAddress, ...], for_s: float
    ) -> None:
        now, key = self.world.timeline.now, (client.service, client.ip)
        used, at = self._used.get(key, (endpoint, now))
        is_kept = used in own and now - at < for_s - 0.05
        is_kept = is_kept and not self.world.health.was_memory_short
        if is_kept:
            why = f"client {client.number} was sent to {endpoint}, and {client.ip} is at {used}"
            self.check(endpoint == used, why)
        self._used[key] = endpoint, now

    def _judge_turn(
        self, client: Client, endpoint: SocketAddress, own: tuple[SocketAddress, ...]
    ) -> None:
        service, serving = client.service, client.service.serving
        balance, weights = serving.handling.balance, dict(serving.weights)
        why = f"client {client.number} was sent to {endpoint}"
        if balance is Balance.SOURCE_HASH:
            used, _ = self._used.setdefault((service, client.ip), (endpoint, 0.0))
            self.check(endpoint == used, f"{why}, and {client.ip} has the hash of {used}")
        elif balance is Balance.ROUND_ROBIN:
            turns = self._turns.setdefault((service, is_inside(serving, client.ip)), Counter())
            turns[endpoint] += 1
            total, whole = turns.total(), sum(weights.get(e, 1) for e in own)
            off = max(abs(turns[e] - total * weights.get(e, 1) / whole) for e in own)
            self.check(off <= (_OFF if weights else 1.0), f"{why}: turns are {turns}")
        elif balance in (Balance.LEAST_CONNECTIONS, Balance.POWER_OF_TWO_CHOICES):
            loads = Counter(
                other.at
                for other in self.world.clients_seen.open
                if other is not client and other.service is service and other.at is not None
                # A dial counts only if it began under a policy that compares connections.
                if other.is_joined or other.chosen_at > service.changed_at
            )
            least = balance is Balance.LEAST_CONNECTIONS
            load = {e: loads[e] / weights.get(e, 1) for e in own}
            others = [load[e] for e in own if e != endpoint]
            is_right = not others or load[endpoint] <= (min(others) if least else max(others))
            self.check(is_right, f"{why}: loads are {load}")
