"""Draws situations in which decisions interact, which rarely happens by chance.

return   an endpoint fails, and clients arrive in a burst as its ejection ends, and again later
reports  other workers report that endpoints failed and answered, among this one's own dials
wake     no endpoint is left, clients wait, and then endpoints are added
crowd    many short connections of few clients: shares, limits, places
deny     an endpoint answers only some clients' addresses
slow     endpoints reset connections whose clients read slowly
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from random import Random

import msgspec

from userspace_proxy.model import Protocol, SocketAddress

from . import plan as plans
from .actors import CLOSE, FINISH, READ, RESET, SEND, Step
from .network import ANSWERS, LATE, REFUSES, SILENT, UNREACHABLE, UNROUTABLE
from .plan import Event, ServicePlan

SITUATIONS = (
    "crowd",
    "deny",
    "reports",
    "return",
    "slow",
    "wake",
)
_FIRST_CLIENT = 40
"""The lowest number of a client in a situation; other clients have lower numbers."""
_MOST_CLIENTS = 100
SCRIPTS: dict[str, tuple[Step, ...]] = {
    "slow": ((0.01, SEND, 4000), (0.2, SEND, 4000), (0.3, RESET, 0)),
}
"""Scripts of the first Service's endpoints in a situation."""
_FAILS = (REFUSES, UNREACHABLE, SILENT, UNROUTABLE)


class Situations:
    """The situations of one plan.

    Args:
        features: Its features, including situations.
        ips: Its clients' addresses.
        lasts_s: The time until the plan's calm end.
    """

    def __init__(
        self,
        rng: Random,
        features: frozenset[str],
        services: Sequence[ServicePlan],
        ips: Sequence[str],
        lasts_s: float,
        draw_steps: Callable[[], tuple[Step, ...]],
    ) -> None:
        self._rng = rng
        self._features = features
        self._tcp = [n for n, each in enumerate(services) if each.protocol is Protocol.TCP]
        self._services = services
        self._ips = ips
        self._lasts_s = lasts_s
        self._draw_steps = draw_steps
        self._clients = 0

    def events(self) -> Iterator[Event]:
        """Yield all events, in any order."""
        for name in SITUATIONS:
            if name in self._features:
                yield from getattr(self, f"_draw_{name}")()

    def _number(self) -> int:
        return self._rng.choice(self._tcp)

    def _endpoint(self, number: int) -> SocketAddress:
        return self._rng.choice(self._services[number].pool)

    def _burst(self, number: int, at: float, count: int, within_s: float) -> Iterator[Event]:
        for _ in range(count):
            if self._clients < _MOST_CLIENTS:
                when = at + within_s * self._rng.random()
                yield self._client(number, round(when, 4))

    def _client(self, number: int, at: float) -> Event:
        return self._client_that(self._draw_few_steps(), number, at)

    def _client_that(self, steps: tuple[Step, ...], number: int, at: float) -> Event:
        rng = self._rng
        client = _FIRST_CLIENT + self._clients
        self._clients += 1
        how = rng.choice(("whole", "whole", "split"))
        return Event(at, plans.CLIENT, (client, number, rng.choice(self._ips), steps, how))

    def _draw_few_steps(self) -> tuple[Step, ...]:
        """Return the script of a client, mostly with a single step."""
        rng = self._rng
        if rng.random() < 0.1:
            return self._draw_steps()
        end = rng.choice((RESET, RESET, CLOSE, FINISH, SEND))
        return ((round(rng.choice((0.005, 0.3, 3.0)) * (0.5 + rng.random()), 4), end, 10),)

    def _draw_return(self) -> Iterator[Event]:
        rng, number = self._rng, self._number()
        endpoint, count = self._endpoint(number), len(self._services[number].pool)
        began = round(0.2 * self._lasts_s * rng.random(), 4)
        yield Event(began, plans.BEHAVE, (endpoint, (rng.choice(_FAILS),)))
        yield from self._burst(number, began + 0.01, 2 * count + 1, 0.3)
        back = rng.choice(((ANSWERS,), (ANSWERS,), (LATE,), (SILENT, ANSWERS)))
        yield Event(began + rng.choice((2.0, 5.5, 8.0)), plans.BEHAVE, (endpoint, back))
        # An ejection lasts 5 s, and 10 s after a failed probe.
        for due_s in (5.3, 8.6, 15.5)[: rng.randint(1, 3)]:
            within_s = rng.choice((0.05, 0.8, 3.0))
            yield from self._burst(number, began + due_s, 2 * count + rng.randint(1, 6), within_s)

    def _draw_reports(self) -> Iterator[Event]:
        rng, number = self._rng, self._number()
        at = self._lasts_s * 0.6 * rng.random()
        for _ in range(rng.randint(2, 8)):
            endpoint = self._endpoint(number)
            how = rng.choice(("failed", "silent", "answered", "answered"))
            yield Event(round(at, 4), plans.ELSEWHERE, (number, endpoint, how))
            if rng.random() < 0.5:
                yield from self._burst(number, at, rng.randint(1, 4), rng.choice((0.01, 0.5)))
            at += rng.choice((0.0, 0.01, 1.0, 5.2))

    def _draw_wake(self) -> Iterator[Event]:
        rng, number = self._rng, self._number()
        serving = self._services[number].serving
        none = msgspec.structs.replace(serving, endpoints=(), weights=(), standbys=())
        if none.outside is not None:
            none = msgspec.structs.replace(none, outside=())
        began = round(0.5 * self._lasts_s * rng.random(), 4)
        away_s = rng.choice((0.2, 1.5, 4.0))
        if rng.random() < 0.5:
            yield Event(began, plans.UPDATE, (number, none))
            yield Event(began + away_s, plans.UPDATE, (number, serving))
        else:
            how = rng.choice(_FAILS)
            for endpoint in self._services[number].pool:
                yield Event(began, plans.BEHAVE, (endpoint, (how,)))
                yield Event(began + away_s, plans.BEHAVE, (endpoint, (ANSWERS,)))
        yield from self._burst(number, began, rng.randint(2, 16), away_s)

    def _draw_crowd(self) -> Iterator[Event]:
        rng, number = self._rng, self._number()
        began = round(0.3 * self._lasts_s * rng.random(), 4)
        within_s = rng.choice((0.1, 2.0, self._lasts_s - began))
        yield from self._burst(number, began, rng.randint(15, 50), within_s)
        if rng.random() < 0.4:
            # The connection limit changes while the crowd continues.
            handling = self._services[number].serving.handling
            other = replace(handling, max_connections=rng.choice((1, 2, 4)))
            serving = msgspec.structs.replace(self._services[number].serving, handling=other)
            at = began + within_s * rng.random()
            yield Event(round(at, 4), plans.UPDATE, (number, serving))

    def _draw_deny(self) -> Iterator[Event]:
        rng, number = self._rng, self._number()
        denied = tuple(ip for ip in self._ips if rng.random() < 0.6)
        began = round(0.3 * self._lasts_s * rng.random(), 4)
        args = (self._endpoint(number), denied, rng.choice((REFUSES, SILENT)))
        yield Event(began, plans.DENY, args)
        yield from self._burst(number, began + 0.01, rng.randint(4, 16), rng.choice((0.1, 4.0)))

    def _draw_slow(self) -> Iterator[Event]:
        rng, number = self._rng, self._tcp[0]
        for _ in range(4):
            reads = tuple((0.9, READ, rng.choice((12, 40))) for _ in range(16))
            yield self._client_that(reads, number, round(rng.random(), 4))
