"""How long a client waits for an endpoint of a Service that has it wait: no longer than it says."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

from .clients import WAITS, Client
from .cluster import Floors
from .rest_checks import at_of

if TYPE_CHECKING:
    from .expecting import Expecting
    from .truth import Expected
    from .world import World

WAITED = "wait for an endpoint"

ANSWERED_S = 3.0
"""A client is served, or told that it isn't, in that time."""
# A worker starts within half of it, and then takes a client that has waited in its queue.
_TAKEN_S = 1.0


class Waits:
    """The oracle of one run.

    Args:
        excuses: Returns whether there is another reason why a client isn't served, and counts it.
    """

    def __init__(
        self, world: World, expecting: Expecting, excuses: Callable[[Client, str], bool]
    ) -> None:
        self._world = world
        self._expecting = expecting
        self._excuses = excuses

    def was_served(self, client: Client, expected: Collection[Expected]) -> None:
        """Judge the wait of a client that is served now."""
        longest_s = max(each.waits_s for each in expected)
        if not longest_s:
            return
        waited_s = self._since_calm_s(client)
        what = f"{client.name} at {at_of(client)} was served after {waited_s:.2f} s"
        self._world.judgements.check(WAITED, waited_s < longest_s + _TAKEN_S, what)

    def was_reset(self, client: Client, expected: Collection[Expected]) -> None:
        """Judge the reset of a client that may have waited for an endpoint."""
        judgements, waited_s = self._world.judgements, self._world.timeline.now - client.dialled_at
        if waited_s >= min(each.waits_s for each in expected if each.waits_s):
            judgements.right(WAITED)
        elif not all(each.waits_s or each.endpoints for each in expected):
            # Accepted, it can't be refused any more where its Service goes, or waits no longer.
            judgements.right(WAITED)
        elif self._expecting.has_moved(client):
            # It waits at the listener of the address's last side, which goes.
            judgements.right(WAITED)
        elif self._world.checks.hand_overs.has_drained(client):
            judgements.excuse(WAITED, "its worker has drained")
        elif not self._excuses(client, WAITED):
            what = f"{client.name} at {at_of(client)} was reset after {waited_s:.2f} s"
            judgements.violate(WAITED, what)

    def expected_at_last(self, client: Client) -> Collection[Expected]:
        """Return what a client may get that may have waited for an endpoint, at the end of it."""
        world, expected = self._world, self._expecting.of(client)
        if all(each.endpoints for each in expected):
            return expected
        longest_s = max(each.waits_s for each in expected)
        is_overdue = self._since_calm_s(client) >= longest_s + ANSWERED_S
        if client.state == WAITS and not is_overdue:
            # Those that come meanwhile are in force, and have it served.
            at = world.timeline.now - ANSWERED_S - world.freshness.bound_s
            if at >= client.dialled_at:
                moments = self._expecting.moments(Floors(at, at))
                return self._expecting.at_moments(moments, client.ip, client.at)
        elif client.state == WAITS and all(each.waits_s for each in expected):
            what = f"{client.name} at {at_of(client)} waits for longer than {longest_s:g} s"
            world.judgements.violate(WAITED, what)
        return expected

    def _since_calm_s(self, client: Client) -> float:
        """Return for how long a client has waited while nothing was disturbed."""
        world = self._world
        return world.timeline.now - max(client.dialled_at, world.freshness.calm_at)
