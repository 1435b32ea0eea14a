"""A client of a Service with session affinity gets the endpoint again that it had, while nothing
about its Service changes, and nothing disturbs the node.
"""

from __future__ import annotations

from collections.abc import Set
from typing import TYPE_CHECKING, Any

from ..claims import Claim, Dialled
from ..clients import SERVED, Client
from ..families import is_six
from ..plan import Object
from ..truth import Truth
from .base import Invariant

if TYPE_CHECKING:
    from ..world import World

# Until all workers have a pin.
_SHARED_S = 0.5
_POLICIES = "internalTrafficPolicy", "externalTrafficPolicy", "loadBalancerSourceRanges"


class Affinity(Invariant):
    """See the module."""

    NAME = "endpoint of before"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._last: dict[tuple[str, str], tuple[Client | None, Any]] = {}
        """By a client's address and a Service port: the client that was served last, and the agent
        then; None: workers may have given several of them different endpoints.
        """

    def client_changed(self, client: Client, was: str) -> None:
        """Part of Invariant."""
        if client.state != SERVED:
            return
        world, claim = self._world, self._world.cluster.last.frontends.get(client.at)
        key = client.ip, "" if claim is None else claim.name
        before, agent = self._last.get(key, (None, None))
        self._last[key] = client, world.agent
        if before is not None and client.dialled_at < before.answered_at + _SHARED_S:
            if client.endpoint != before.endpoint:
                self._last[key] = None, None
            return
        if before is None or agent is not world.agent or not self._is_pinned(before, client):
            return
        what = f"{client.name} had {before.endpoint}, and was served by {client.endpoint}"
        self.check(client.endpoint == before.endpoint, what)

    def _is_pinned(self, before: Client, client: Client) -> bool:
        """Return whether nothing has happened since that ends or hides a pin."""
        world = self._world
        # Whatever disturbs a node may have ended a worker, which has pins.
        if world.freshness.calm_at >= before.dialled_at:
            return False
        states = list(world.cluster.between(before.floors.all, world.timeline.now))
        kinds = [_kind(truth, client.at) for truth in states]
        if kinds[0] is None or any(kind != kinds[0] for kind in kinds):
            return False
        each = [_endpoints(truth, client) for truth in states]
        # A client that dials several addresses moves its pin where these have different endpoints.
        return all(len(some) == 1 and before.endpoint in next(iter(some)) for some in each)


def _endpoints(truth: Truth, client: Client) -> Set[frozenset[tuple[str, int]]]:
    """Return the endpoints for a client at all addresses of its Service port."""
    name, is_of_six = truth.frontends[client.at].name, is_six(client.at[0])
    own = (at for at, claim in truth.frontends.items() if claim.name == name)
    return {truth.expected(client.ip, at).endpoints for at in own if is_six(at[0]) is is_of_six}


def _kind(truth: Truth, at: Dialled) -> object:
    """Return which Service port pins are of, and its policies; None: it has none."""
    claim: Claim | None = truth.frontends.get(at)
    if claim is None or not has_affinity(claim.service):
        return None
    spec = claim.service["spec"]
    return claim.kind, [spec.get(name) for name in _POLICIES]


def has_affinity(service: Object) -> bool:
    """Return whether clients of a Service return to their endpoints."""
    return bool(service["spec"].get("sessionAffinity") == "ClientIP")
