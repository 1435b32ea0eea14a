"""Draws situations of endpoints that return while other workers dial them, or have clients wait.

They have a random source that other plans don't share.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from userspace_proxy.model.handling import Handling, Hold
from userspace_proxy.model.serving import Serving

from ..network import REFUSES, SILENT
from ..plan import Event
from .plan import BREAK, CLIENT, ENDPOINTS, SERVE
from .situations import Situations

# A dial that meets silence lasts a second, and a first ejection five.
_PROBED_S = 6.15
_HOLD_S, _SLOWLY_S = 8.0, 10.0


class ReturnSituations(Situations):
    """Draws the situations of one plan."""

    FIRST_CLIENT = 3_400

    def all(self) -> Iterator[tuple[frozenset[str], list[Event]]]:
        """Yield the names and events of those that this plan has."""
        situations: Sequence[tuple[float, str, Callable[[], Iterator[Event]]]] = (
            (0.08, "a return beside an older dial", self.older_dials),
            (0.06, "a return while clients wait", self.waiting_clients),
        )
        for share, name, draw in situations:
            if self._rng.random() < share and self._tcp:
                yield frozenset((name,)), list(draw())

    def _at(self) -> float:
        return round(0.3 + max(0.0, self._calm_at - 9.0) * self._rng.random(), 4)

    def _client(self, at: float, number: int) -> Event:
        return Event(round(at, 4), CLIENT, (next(self._clients), number, 0.0))

    def older_dials(self) -> Iterator[Event]:
        """Yield an endpoint that answers between the probes of two workers."""
        rng, at, number = self._rng, self._at(), self._rng.choice(self._tcp)
        handling = Handling(slow_start_s=rng.choice([0.0, _SLOWLY_S]))
        endpoints = tuple(rng.sample(ENDPOINTS, rng.choice([2, 2, 3])))
        yield Event(at, SERVE, (number, Serving(endpoints, handling=handling), (0, 1)))
        silent_s = _PROBED_S + rng.choice([0.2, 0.3, 0.4])
        yield Event(at, BREAK, (endpoints[0], SILENT, silent_s))
        for n in range(6):
            yield self._client(at + 0.02 + 0.03 * n, number)
        # Some begin probes that meet silence, and the others find that it answers.
        for n in range(rng.randint(1, 3)):
            yield self._client(at + _PROBED_S + 0.08 * n, number)
        for n in range(8):
            yield self._client(at + silent_s + 0.01 + 0.06 * n, number)

    def waiting_clients(self) -> Iterator[Event]:
        """Yield an endpoint that is ejected and returns, while clients of all workers wait."""
        rng, at, number = self._rng, self._at(), self._rng.choice(self._tcp)
        endpoint = rng.choice(ENDPOINTS)
        serving = Serving((endpoint,), handling=Handling(hold=Hold(_HOLD_S)))
        yield Event(at, SERVE, (number, serving, (0, 1)))
        how = rng.choice([REFUSES, REFUSES, SILENT])
        yield Event(at, BREAK, (endpoint, how, round(2.0 + 2.5 * rng.random(), 4)))
        for _ in range(rng.randint(4, 10)):
            yield self._client(at + 0.02 + 1.8 * rng.random(), number)
