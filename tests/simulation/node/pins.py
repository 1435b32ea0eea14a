"""Session affinity at a node: a client gets the endpoint again that it had.

Only that: how long pins last, and what ends them, is judged where workers alone are simulated.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .claims import Claim, Dialled
from .clients import Client
from .plan import Object
from .truth import Truth

if TYPE_CHECKING:
    from .world import World

PINNED = "endpoint of before"

# Until all workers have a pin.
_SHARED_S = 0.5
_POLICIES = "internalTrafficPolicy", "externalTrafficPolicy", "loadBalancerSourceRanges"


class Pins:
    """The oracle of one run."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._last: dict[tuple[str, Dialled], tuple[Client, Any]] = {}
        """Of each address by client: the client that was served last, and the agent then."""

    def served(self, client: Client) -> None:
        """Judge the endpoint of a client, and remember it."""
        world, key = self._world, (client.ip, client.at)
        before, agent = self._last.get(key, (None, None))
        self._last[key] = client, world.agent
        if before is None or agent is not world.agent or not self._is_pinned(before, client):
            return
        what = f"{client.name} had {before.endpoint}, and was served by {client.endpoint}"
        world.judgements.check(PINNED, client.endpoint == before.endpoint, what)

    def _is_pinned(self, before: Client, client: Client) -> bool:
        """Return whether nothing has happened since that ends or hides a pin."""
        world = self._world
        since = before.answered_at
        # Whatever disturbs a node may have ended a worker, which has pins.
        if client.dialled_at < since + _SHARED_S or world.freshness.calm_at >= before.dialled_at:
            return False
        states = list(world.cluster.between(before.floors.all, world.timeline.now))
        kinds = [_kind(truth, client.at) for truth in states]
        if kinds[0] is None or any(kind != kinds[0] for kind in kinds):
            return False
        expected = (truth.expected(client.ip, client.at) for truth in states)
        return all(before.endpoint in each.endpoints for each in expected)

    def dial_again(self, clients: Sequence[Client]) -> bool:
        """Have those clients that were served at rest come again; return whether any does.

        Args:
            clients: All that came at rest.
        """
        world = self._world
        before = len(world.clients)
        for client in clients:
            claim = world.cluster.last.frontends.get(client.at)
            if claim is not None and _has_affinity(claim.service) and client.endpoint:
                world.dial(client.ip, client.at, 0.05)
        return len(world.clients) > before


def _kind(truth: Truth, at: Dialled) -> object:
    """Return which Service port pins are of, and its policies; None: it has none."""
    claim: Claim | None = truth.frontends.get(at)
    if claim is None or not _has_affinity(claim.service):
        return None
    spec = claim.service["spec"]
    return claim.kind, [spec.get(name) for name in _POLICIES]


def _has_affinity(service: Object) -> bool:
    return bool(service["spec"].get("sessionAffinity") == "ClientIP")
