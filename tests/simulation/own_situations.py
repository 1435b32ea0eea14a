"""Situations that are drawn apart from the rest of a plan, so that other plans stay what they were.

leaves   an endpoint leaves, its Service changes again and again, and its connections end in time,
         in some plans since it asks for that only later
moved    a listener of one Service accepts for another one, among clients of both
observed connections are observed by some filters, with room for few or many records
refill   the node is full for a moment, then has room, and is full again much later
alone    no room for new connections, and each client has one, which it uses
queues   more clients of UDP than endpoints may have flows
shared   endpoints of one Service are endpoints of another one, too
silent   an endpoint of UDP that has answered a flow doesn't answer it any more
workers  this is one of several workers, which share limits and places of those that wait
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from random import Random

import msgspec

from userspace_proxy.facts.connection import ConnectionFilter
from userspace_proxy.model import Balance, Protocol, SocketAddress
from userspace_proxy.model.handling import Hold
from userspace_proxy.model.serving import Serving

from . import plan as plans
from .actors import FINISH, SEND
from .adding import Adding
from .lone_situations import with_lone_situation
from .network import ANSWERS, REFUSES, SILENT, UNREACHABLE
from .plan import Event, Plan

_SHARES = {
    "leaves": 0.05,
    "refill": 0.04,
    "alone": 0.03,
    "queues": 0.3,
    "silent": 0.2,
    "workers": 0.15,
}
_SHARED = 0.2
"""Of the plans with several Services of TCP."""
_MOVED = 0.15
"""Of those, too."""
_OBSERVED = 0.12
"""Of all plans."""
_REMOVAL_S = 5.0
_FULL = 24
"""Descriptors that about ten connections use up."""


def with_own_situations(plan: Plan) -> Plan:
    """Return a plan with the situations that its seed has, too."""
    plan = _shared(plan, Random(f"{plan.seed}: shared endpoints"))
    plan = _moved(plan, Random(f"{plan.seed}: moved listeners"))
    plan = _observed(plan, Random(f"{plan.seed}: observed"))
    rng = Random(f"{plan.seed}: own situations")
    drawn = {name for name, share in _SHARES.items() if rng.random() < share}
    services = {each.protocol for each in plan.services}
    if Protocol.UDP not in services:
        drawn -= {"queues", "silent"}
    if drawn & {"refill", "alone"} and plan.features & {"memory", "full"}:
        drawn -= {"refill", "alone"}
    if "refill" in drawn:
        drawn.discard("alone")
    for name, add in _SITUATIONS.items():
        if name in drawn:
            plan = add(Adding(rng, plan))
    return plan if drawn else with_lone_situation(plan)


def _shared(plan: Plan, rng: Random) -> Plan:
    """What is known of an endpoint concerns each of its Services, or one of them alone."""
    tcp = [n for n, each in enumerate(plan.services) if each.protocol is Protocol.TCP]
    if len(tcp) < 2 or rng.random() >= _SHARED:
        return plan
    one, other = rng.sample(tcp, 2)
    pools = plan.services[other].pool, plan.services[one].pool
    instead = dict(zip(*pools, strict=False))

    def changed(event: Event) -> Event:
        if event.what == plans.UPDATE and event.args[0] == other:
            return replace(event, args=(other, _instead(event.args[1], instead)))
        if event.what == plans.ELSEWHERE and event.args[0] == other:
            endpoint = instead.get(event.args[1], event.args[1])
            return replace(event, args=(other, endpoint, *event.args[2:]))
        return event

    planned = plan.services[other]
    services = list(plan.services)
    services[other] = replace(
        planned,
        pool=tuple(instead.get(e, e) for e in planned.pool),
        serving=_instead(planned.serving, instead),
    )
    # Its own clients are replaced, as many would cost more time.
    changes = [
        changed(event)
        for event in plan.events
        if event.what != plans.CLIENT or event.args[1] != other
    ]
    adding = Adding(rng, replace(plan, services=tuple(services)))
    if rng.random() < 0.5:
        adding.plan = replace(adding.plan, node=replace(plan.node, is_preserving=True))
    at = 0.5 * plan.calm_at * rng.random()

    def events() -> Iterator[Event]:
        for endpoint in services[other].pool:
            if rng.random() < 0.6:
                how = rng.choice((REFUSES, SILENT, UNREACHABLE))
                if rng.random() < 0.5:
                    yield Event(at, plans.DENY, (endpoint, ("10.3.0.1", "10.3.0.2"), how))
                else:
                    yield Event(at, plans.BEHAVE, (endpoint, (how,)))
                    yield Event(at + rng.choice((0.5, 3.0)), plans.BEHAVE, (endpoint, (ANSWERS,)))
        within_s = rng.choice((0.02, 0.5, 4.0))
        for n in range(10):
            steps = [(0.5 * rng.random(), FINISH, 0)]
            ip = f"10.3.0.{n % 3 + 1}"
            yield adding.client((one, other)[n % 2], at + within_s * rng.random(), ip, steps)

    return adding.with_events("shared", events(), plan.calm_at, changes)


def _moved(plan: Plan, rng: Random) -> Plan:
    """Clients are those of the Service for which they are accepted, and stay that."""
    tcp = [n for n, each in enumerate(plan.services) if each.protocol is Protocol.TCP]
    if len(tcp) < 2 or rng.random() >= _MOVED:
        return plan
    one, other = rng.sample(tcp, 2)
    adding = Adding(rng, plan)
    at = round(0.5 * plan.calm_at * rng.random(), 4)

    def events() -> Iterator[Event]:
        yield Event(at, plans.MOVE_LISTENER, (one, other))
        if rng.random() < 0.4:
            # Its own Service is no more: none that waits for an endpoint stays.
            handling = replace(plan.services[one].serving.handling, hold=None)
            yield Event(at, plans.UPDATE, (one, Serving(handling=handling)))
        if rng.random() < 0.3:
            yield Event(at, plans.MOVE_LISTENER, (other, one))
        if rng.random() < 0.4:
            yield Event(at + 0.4, plans.MOVE_LISTENER, (one, one))
        for n in range(6):
            steps = [(rng.choice((0.1, 2.0)) * rng.random(), FINISH, 0)]
            began = max(0.0, at + 0.8 * rng.random() - 0.3)
            yield adding.client((one, one, other)[n % 3], began, f"10.3.0.{n % 4 + 1}", steps)

    return adding.with_events("moved", events(), plan.calm_at, plan.events)


def _observed(plan: Plan, rng: Random) -> Plan:
    """What is observed is asked for now and then, each time by other filters, or the same."""
    if rng.random() >= _OBSERVED:
        return plan
    client = ConnectionFilter(client=f"10.3.{rng.choice((0, 200))}.1")
    ports = [f"shop/web-{each.address[1]}" for each in plan.services]
    drawn = (
        ConnectionFilter(),
        client,
        ConnectionFilter(failed=True),
        ConnectionFilter(saved=True),
        ConnectionFilter(slow_s=rng.choice((0.01, 1.0))),
        ConnectionFilter(service=rng.choice(ports), saved=True, failed=True),
        ConnectionFilter(service=f"{rng.choice(ports)}:http"),
    )
    times = sorted([0.0, *(plan.calm_at * rng.random() for _ in range(rng.randint(1, 3)))])
    events = [
        Event(round(at, 4), plans.OBSERVE, (tuple(rng.sample(drawn, rng.randint(1, 3))),))
        for at in times
    ]
    adding = Adding(rng, replace(plan, node=replace(plan.node, records=rng.choice((4, 7, 128)))))
    return adding.with_events("observed", iter(events), plan.calm_at, plan.events)


def _instead(serving: Serving, instead: Mapping[SocketAddress, SocketAddress]) -> Serving:
    """Return a serving with other endpoints."""

    def of(endpoint: SocketAddress) -> SocketAddress:
        return instead.get(endpoint, endpoint)

    return msgspec.structs.replace(
        serving,
        endpoints=tuple(map(of, serving.endpoints)),
        outside=None if serving.outside is None else tuple(map(of, serving.outside)),
        weights=tuple((of(endpoint), weight) for endpoint, weight in serving.weights),
        standbys=tuple((of(endpoint), priority) for endpoint, priority in serving.standbys),
    )


def _leaves(adding: Adding) -> Plan:
    """An endpoint leaves; each later change leaves it out, too, and counts for nothing.

    In half of the plans the Service asks only after that for an end of its connections.
    """
    rng, number = adding.rng, adding.number(Protocol.TCP)
    planned = adding.plan.services[number]
    asked = replace(planned.serving.handling, removal_s=_REMOVAL_S)
    # Drawn apart, so that the rest of these plans stays what it was.
    late = Random(f"{adding.plan.seed}: asked for later")
    unasked = late.choice((0, 0, 1, 2))
    handling = replace(asked, removal_s=None) if unasked else asked
    before = Serving(planned.pool, handling=handling)
    left = rng.sample(planned.pool, rng.randint(1, len(planned.pool)))
    if unasked:
        left = left[: max(1, len(planned.pool) - 1)]
    stay = tuple(e for e in planned.pool if e not in left)
    after = Serving(stay, handling=handling)
    if stay and rng.random() < (0.8 if unasked else 0.4):
        # It is on standby from then on.
        standbys = tuple((endpoint, 1) for endpoint in left)
        after = Serving(planned.pool, standbys=standbys, handling=handling)

    def events() -> Iterator[Event]:
        yield Event(0.0, plans.UPDATE, (number, before))
        talk = [(round(0.6 + rng.random(), 3), SEND, 5) for _ in range(16)]
        for n in range(6):
            yield adding.client(number, 0.5 + rng.random(), f"10.3.0.{n + 1}", talk)
        at = 2.0 + rng.random()
        yield Event(at, plans.UPDATE, (number, after))
        for n in range(rng.randint(1, 4)):
            at += 0.5 + 1.5 * rng.random()
            other = replace(handling if n + 1 < unasked else asked, seed=n)
            yield Event(at, plans.UPDATE, (number, msgspec.structs.replace(after, handling=other)))

    # Other changes would bring it back.
    kept = [e for e in adding.plan.events if e.what != plans.UPDATE or e.args[0] != number]
    return adding.with_events("removal", events(), 16.0, kept)


def _refill(adding: Adding) -> Plan:
    """A pause is over when there is room again, or nothing waits, and another one begins anew."""
    rng, number = adding.rng, adding.number(Protocol.TCP)
    adding.plan = replace(adding.plan, node=replace(adding.plan.node, descriptor_limit=_FULL))
    ip = "10.3.0.{}".format

    def events() -> Iterator[Event]:
        idle, short = [(90.0, SEND, 1)], [(1.5 + rng.random(), FINISH, 0)]
        for n in range(3):
            yield adding.client(number, 0.2 * rng.random(), ip(n + 1), idle)
        for n in range(10):
            yield adding.client(number, 0.3 + 0.1 * rng.random(), ip(n + 4), short)
        if rng.random() < 0.5:
            for each in range(len(adding.plan.services)):
                yield Event(0.5, plans.CLOSE_LISTENER, (each,))
                yield Event(6.0, plans.OPEN_LISTENER, (each,))
        for n in range(14):
            yield adding.client(number, 13.0 + 0.1 * rng.random(), ip(n + 14), idle)

    kept = [e for e in adding.plan.events if e.what not in (plans.CLIENT, plans.STOP)]
    return adding.with_events("shedding", events(), 18.0, kept)


def _alone(adding: Adding) -> Plan:
    """Clients have one connection each; those that are in use stay."""
    rng, number = adding.rng, adding.number(Protocol.TCP)
    adding.plan = replace(adding.plan, node=replace(adding.plan.node, descriptor_limit=_FULL))

    def events() -> Iterator[Event]:
        for n in range(11):
            in_use = n >= 2 and rng.random() < 0.8
            talk = [(2.0 + rng.random(), SEND, 5) for _ in range(15)]
            steps = talk if in_use else [(90.0, SEND, 1)]
            yield adding.client(number, rng.random(), f"10.3.0.{n + 11}", steps)
        for n in range(12):
            at = 22.0 + 10.0 * rng.random()
            yield adding.client(number, at, f"10.3.0.{n + 31}", [(3.0, SEND, 5)])

    kept = [e for e in adding.plan.events if e.what != plans.CLIENT]
    return adding.with_events("shedding", events(), 38.0, kept)


def _queues(adding: Adding) -> Plan:
    """Flows wait for others to end, some of which are used for longer."""
    rng, number = adding.rng, adding.number(Protocol.UDP)
    planned = adding.plan.services[number]
    node = replace(adding.plan.node, udp_idle_s=3.0, max_flows=1000)
    adding.plan = replace(adding.plan, node=node)
    hold = rng.choice((None, Hold(30.0)))
    limit = rng.choice((1, 2))
    handling = replace(planned.serving.handling, max_connections=limit, hold=hold)
    if handling.balance is Balance.SOURCE_HASH:
        handling = replace(handling, balance=Balance.RANDOM)
    endpoints: tuple[SocketAddress, ...] = planned.pool[: rng.randint(1, 2)]

    def events() -> Iterator[Event]:
        yield Event(0.0, plans.UPDATE, (number, Serving(endpoints, handling=handling)))
        for n in range(limit * len(endpoints) + rng.randint(1, 6)):
            client = f"10.3.0.{n % 5 + 1}", 42000 + n
            at = 0.5 + (0.1 * n if rng.random() < 0.7 else 3.0 * rng.random())
            for asked in range(rng.choice((1, 1, 3))):
                yield Event(round(at + 1.7 * asked, 4), plans.ASK, (number, client, 64, 1))

    kept = [e for e in adding.plan.events if e.what != plans.UPDATE or e.args[0] != number]
    return adding.with_events("limit", events(), 12.0, kept)


def _silent(adding: Adding) -> Plan:
    """A client goes on asking, and reports of workers find that nothing answers it."""
    rng, number = adding.rng, adding.number(Protocol.UDP)
    client = "10.3.0.1", 43000

    def events() -> Iterator[Event]:
        at, began = 0.5, rng.random()
        for asked in range(16):
            yield Event(round(began + at, 4), plans.ASK, (number, client, 64, 1))
            at += 1.5
            yield Event(round(began + at - 0.5, 4), plans.REPORT)
            if asked == 3:
                for endpoint in adding.plan.services[number].pool:
                    yield Event(round(began + at - 0.2, 4), plans.BEHAVE, (endpoint, (SILENT,)))

    return adding.with_events("late", events(), 27.0, adding.plan.events)


def _workers(adding: Adding) -> Plan:
    """This is one of several workers, in some plans with more clients than places."""
    rng, number = adding.rng, adding.number(Protocol.TCP)
    processes = rng.choice((2, 3))
    node = replace(adding.plan.node, processes=processes, index=rng.randrange(processes))
    adding.plan = plan = replace(adding.plan, node=node)
    if rng.random() < 0.6:
        return plan
    serving = plan.services[number].serving
    hold = Hold(5.0, rng.choice((3, 5, 7)))
    none = Serving(handling=replace(serving.handling, hold=hold))

    def events() -> Iterator[Event]:
        at = 0.5 * plan.calm_at * rng.random()
        yield Event(round(at, 4), plans.UPDATE, (number, none))
        for n in range(7):
            steps = [(0.3 * rng.random(), FINISH, 0)]
            yield adding.client(number, at + 0.1 + 0.8 * rng.random(), f"10.3.0.{n % 3 + 1}", steps)
        yield Event(round(at + 1.5, 4), plans.UPDATE, (number, serving))

    return adding.with_events("hold", events(), plan.calm_at, plan.events)


_SITUATIONS = {
    "leaves": _leaves,
    "refill": _refill,
    "alone": _alone,
    "queues": _queues,
    "silent": _silent,
    "workers": _workers,
}
