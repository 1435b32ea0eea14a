"""A client is sent only to an allowed endpoint, and if one of them answers, to one that answers.

the Service's fields ─▶ inside, outside; priorities ─┐
failures in the last seconds ────────────────────────┴▶ none of a lower priority, and none that
                                                        has just failed, while a better one is fine
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from userspace_proxy.model import SocketAddress

from ..addresses import NODE_IPS
from ..health import LONG_S
from ..serving_rules import allowed, first
from ..streams import CLOSED
from .promise import Promise

if TYPE_CHECKING:
    from ..clients import Client, Dial
    from ..world import World

# The seconds after a first failure until which, and from which, an endpoint must be ejected. The
# ejection lasts 5 s from when the data plane notices the failure, an iteration of its loop later,
# so both leave a margin.
_EJECTED_S, _KNOWN_S = 4.7, 0.1


class Endpoints(Promise):
    """Judges the endpoints of one run."""

    name = "endpoints"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._dials: list[tuple[Client, Dial]] = []
        """Recent dials: the first failure of an endpoint counts."""

    def dialled(self, client: Client, dial: Dial) -> None:
        """Record a dial."""
        self._dials = [(c, d) for c, d in self._dials if dial.at - d.at < LONG_S]
        self._dials.append((client, dial))

    def joined(self, client: Client) -> None:
        """Check that the endpoint that answers is the one dialled last."""
        why = f"client {client.number} was joined to {client.endpoint}"
        self.check(client.endpoint == client.dials[-1].endpoint, why)

    def chosen(self, client: Client, endpoint: SocketAddress) -> None:
        """Judge the choice of an endpoint before it is dialled."""
        world, serving = self.world, client.service.serving
        if world.is_closed:
            return
        why = f"client {client.number} was sent to {endpoint}"
        may = allowed(serving, client.ip)
        self.check(endpoint in may, f"{why}, which isn't there for it")
        better = [e for e in self._fine(client) if e != endpoint]
        if better:
            if endpoint not in first(serving, client.ip):
                self.check(False, f"{why}, a standby, and {better[0]} is fine")
            failed_s = self._failed_s(client, endpoint)
            is_out = failed_s is not None and _KNOWN_S < failed_s < _EJECTED_S
            self.check(not is_out, f"{why}, which failed {failed_s} s ago, and {better[0]} is fine")

    def _fine(self, client: Client) -> Iterator[SocketAddress]:
        """Yield endpoints of the best priority that answer, have room, and weren't yet tried."""
        serving = client.service.serving
        tried = {dial.endpoint for dial in client.dials}
        if serving.handling.max_connections is None:
            for endpoint in first(serving, client.ip):
                if endpoint not in tried and client.service.is_fine(endpoint):
                    yield endpoint

    def _failed_s(self, client: Client, endpoint: SocketAddress) -> float | None:
        """Return the seconds since an endpoint failed for this Service; None if it may answer."""
        service, health = client.service, self.world.health
        answered_at, at = service.answered.get(endpoint, 0.0), (endpoint.ip, endpoint.port)
        if any(to == at for _, to in self.world.network.policies) or health.was_reported(endpoint):
            return None
        for other, dial in self._dials:
            core, is_own = dial.core, dial.endpoint == endpoint and other.service is service
            failed_at = core.failed_at
            if not is_own or core.state != CLOSED or core is other.right:
                continue
            if failed_at is None or failed_at > answered_at:
                # An earlier failure, or one that isn't recorded here, may have begun the ejection.
                is_of_node = core.local is not None and core.local[0] in NODE_IPS
                is_sure = is_of_node and failed_at is not None and failed_at > service.changed_at
                return self.world.timeline.now - failed_at if is_sure and failed_at else None
        return None
