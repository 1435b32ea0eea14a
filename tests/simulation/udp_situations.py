"""Situations of UDP clients, drawn separately from the rest of a plan, which has at most one.

absent   no host has an endpoint's address, so that ARP fails after three seconds
leaves   an endpoint terminates, serves its clients, and then stops or returns
queues   more clients than endpoints may have flows
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from random import Random

from userspace_proxy.model import Protocol, SocketAddress
from userspace_proxy.model.handling import Balance, Hold
from userspace_proxy.model.serving import Serving

from . import plan as plans
from .adding import Adding
from .network import ABSENT, ANSWERS, REFUSES, Address
from .plan import Event, Plan

_SHARE = 0.6
# With connection limits, a client doesn't always get the same endpoint.
_BALANCES = tuple(each for each in Balance if each is not Balance.SOURCE_HASH)


def with_udp_situation(plan: Plan) -> Plan:
    """Return a plan with the UDP situation that its seed selects."""
    numbers = [n for n, each in enumerate(plan.services) if each.protocol is Protocol.UDP]
    rng = Random(f"{plan.seed}: situations of UDP")
    if not numbers or rng.random() >= _SHARE:
        return plan
    name = rng.choice(list(_SITUATIONS))
    return _SITUATIONS[name](FlowAdding(rng, plan, rng.choice(numbers)))


class FlowAdding(Adding):
    """Draws the clients and changes of one UDP Service that are added to one plan."""

    def __init__(self, rng: Random, plan: Plan, number: int) -> None:
        super().__init__(rng, plan)
        self.of = number
        self.service = plan.services[number]
        self.pool = self.service.pool

    def ask(self, client: Address, at: float) -> Event:
        """Return the event that a client sends a datagram."""
        return Event(round(at, 4), plans.ASK, (self.of, client, 64, 1))

    def behave(self, endpoint: SocketAddress, at: float, *how: str) -> Event:
        """Return the event that changes an endpoint's reaction to datagrams."""
        return Event(round(at, 4), plans.BEHAVE, (endpoint, how))


def _absent(adding: FlowAdding) -> Plan:
    """Add clients that send repeatedly while endpoints are absent, or one of them refuses."""
    rng = adding.rng
    if rng.random() < 0.8:
        adding.plan = replace(adding.plan, node=replace(adding.plan.node, is_preserving=True))

    def events() -> Iterator[Event]:
        began = 3.0 * rng.random()
        away = rng.sample(adding.pool, rng.randint(1, len(adding.pool)))
        for place, endpoint in enumerate(away):
            refuses = place == 0 and len(away) > 1 and rng.random() < 0.6
            yield adding.behave(endpoint, began, REFUSES if refuses else ABSENT)
            yield adding.behave(endpoint, began + 9.0, ANSWERS)
        for n in range(rng.randint(2, 6)):
            at = began + 0.1 + 2.0 * rng.random()
            for _ in range(rng.randint(1, 6)):
                yield adding.ask((f"10.3.0.{n + 1}", 44000), at)
                at += rng.choice((0.4, 1.5, 4.3))

    return adding.with_events("absent", events(), 14.0, adding.plan.events)


def _served(adding: FlowAdding) -> None:
    """Make a Service answer from the start, without limits and without other changes."""
    plan = adding.plan
    handling = replace(adding.service.serving.handling, max_connections=None)
    begin = Event(0.0, plans.UPDATE, (adding.of, Serving(adding.pool, handling=handling)))
    about = {adding.of, *adding.pool}
    kept = [e for e in plan.events if e.what == plans.ASK or about.isdisjoint(e.args[:1])]
    adding.plan = replace(plan, events=(begin, *kept))


def _leaves(adding: FlowAdding) -> Plan:
    """Terminate endpoints: their clients keep them, and new clients get other endpoints."""
    rng, number, pool = adding.rng, adding.of, adding.pool
    _served(adding)
    handling = replace(
        adding.service.serving.handling,
        max_connections=None,
        removal_s=rng.choice((0.0, 1.0, 3.0)),
    )
    gone = rng.sample(pool, rng.randint(1, len(pool)))
    rest = tuple(each for each in pool if each not in gone)

    def serving(endpoints: Sequence[SocketAddress], leaving: Sequence[SocketAddress]) -> Event:
        handling_now = replace(handling, removal_s=rng.choice((0.0, 1.0, 3.0)))
        both = handling if rng.random() < 0.8 else handling_now
        served = Serving(tuple(endpoints), handling=both, leaving=tuple(leaving))
        return Event(0.0, plans.UPDATE, (number, served))

    def events() -> Iterator[Event]:
        yield serving(pool, ())
        for n in range(rng.randint(2, 6)):
            began = 0.2 + rng.choice((1.0, 4.0)) * rng.random()
            for asked in range(rng.choice((2, 9))):
                yield adding.ask((f"10.3.0.{n + 1}", 56000), began + 0.8 * asked)
        at = 1.0 + rng.random()
        changes = [serving(rest, gone)]
        for _ in range(rng.randint(0, 3)):
            back = gone[: rng.randint(0, len(gone))]
            left = [each for each in gone if each not in back]
            changes.append(
                rng.choice(
                    (
                        serving(rest, gone),
                        serving(rest, left),
                        serving((*rest, *back), left),
                        serving(pool, ()),
                    )
                )
            )
        for change in changes:
            yield replace(change, at=round(at, 4))
            at += rng.choice((0.3, 2.0)) * rng.random()

    return adding.with_events("leaves", events(), 10.0, adding.plan.events)


def _queues(adding: FlowAdding) -> Plan:
    """Add more clients than endpoints may have flows; some flows last longer."""
    rng, number = adding.rng, adding.of
    node = replace(adding.plan.node, udp_idle_s=3.0, max_flows=1000)
    limit, hold = rng.choice((1, 2)), rng.choice((None, Hold(30.0)))
    handling = replace(
        adding.service.serving.handling,
        max_connections=limit,
        hold=hold,
        balance=rng.choice(_BALANCES),
    )
    endpoints: tuple[SocketAddress, ...] = adding.pool[: rng.randint(1, 2)]
    kept = [e for e in adding.plan.events if e.what != plans.UPDATE or e.args[0] != number]
    adding.plan = replace(adding.plan, node=node, events=tuple(kept))

    def events() -> Iterator[Event]:
        yield Event(0.0, plans.UPDATE, (number, Serving(endpoints, handling=handling)))
        for n in range(limit * len(endpoints) + rng.randint(1, 6)):
            at = 0.5 + (0.1 * n if rng.random() < 0.7 else 3.0 * rng.random())
            for asked in range(rng.choice((1, 1, 3))):
                yield adding.ask((f"10.3.0.{n % 5 + 1}", 42000 + n), at + 1.7 * asked)

    return adding.with_events("queues", events(), 12.0, adding.plan.events)


_SITUATIONS: dict[str, Callable[[FlowAdding], Plan]] = {
    "absent": _absent,
    "leaves": _leaves,
    "queues": _queues,
}
