"""An agent sends no more requests in a second than its kinds of objects need, with retries.

Further pages of a list don't count.
"""

from __future__ import annotations

from .base import Invariant

_SECOND_S = 1.0
# The kinds are Services, EndpointSlices, this node's Node and all Nodes. Each causes a list, a
# watch and a query, with retries after 0.1 s, then after twice as long each time.
_KINDS, _TRIES = 4, 10


class Requests(Invariant):
    """Judges requests per second, as the module describes."""

    NAME = "requests have a bound"

    def check_rest(self) -> None:
        server = self._world.api.server
        times = [at for at, _, _, query in server.requests if not query.get("continue")]
        first, most, at_most = 0, 0, 0.0
        for last, at in enumerate(times):
            while times[first] < at - _SECOND_S:
                first += 1
            if last - first + 1 > most:
                most, at_most = last - first + 1, at
        # Each agent lists all objects when it starts.
        starts = len(self._world.agents)
        bound = _KINDS * _TRIES + 6 * min(starts, 3)
        self.check(most <= bound, f"{most} requests within a second up to {at_most:.1f}")
        self._check_quiet(times)

    def _check_quiet(self, times: list[float]) -> None:
        """Check that an idle agent sends requests only when watches end."""
        world = self._world
        quiet = [at for at in times if at > world.timeline.now - 5.0]
        is_right = len(quiet) <= 2 * _KINDS
        self.check(is_right, f"{len(quiet)} requests in five seconds at rest")
