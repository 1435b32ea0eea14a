"""A client is served only by an endpoint that its Service's fields allow, now or within the time
after which a change is applied. This holds during faults, too: whether changes may be late is
derived from the faults, not from what the agent reports.
"""

from __future__ import annotations

from collections.abc import Set

from ..clients import SERVED, Client, at_of
from ..expecting import Expecting
from ..plan import BREAK, DRAIN_S
from ..truth import Expected
from .base import Invariant

# The time for a previous agent's workers to exit after their drain.
_GONE_S = 1.0


class Endpoints(Invariant):
    """Judges each client's endpoint, as the module describes."""

    NAME = "allowed endpoint"

    def client_changed(self, client: Client, was: str) -> None:
        if client.state != SERVED:
            return
        expecting = self._world.expecting
        allowed = {at for each in expecting.of(client) for at in self._serving(each)}
        if client.endpoint not in allowed:
            allowed = {at for each in expecting.in_parts(client) for at in self._serving(each)}
        is_right = client.endpoint in allowed or self._may_be_of_last(client, expecting)
        what = f"{client.name} at {at_of(client)} was served by {client.endpoint}, not {allowed}"
        self.check(is_right, what)

    def _serving(self, expected: Expected) -> Set[tuple[str, int]]:
        """Return the allowed endpoints; includes standbys if the plan breaks all better ones."""
        broken = {e.args[0] for e in self._world.plan.events if e.what == BREAK}
        first = expected.endpoints
        has_none = bool(first) and all(ip in broken for ip, _ in first)
        return first | expected.standbys if has_none else first

    def _may_be_of_last(self, client: Client, expecting: Expecting) -> bool:
        """Return whether a client's port may still be its former owner's.

        Owners may change while no agent serves. A port has its former owner until the next agent
        serves, and the previous agent's workers have drained.
        """
        world, agent = self._world, self._world.agent
        served_at = agent.served_at if agent is not None else float("inf")
        if world.timeline.now > served_at + DRAIN_S + _GONE_S:
            return False
        return expecting.have_moved(client)
