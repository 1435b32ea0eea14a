"""Situations of which a plan has one at most, and none beside those of ``own_situations``.

dialled  endpoints leave while they are dialled, and answer afterwards
restarts an endpoint that starts slowly fails, and is back among many clients
unwatched the kernel lacks something for longer than clients may wait
routes   endpoints and clients move to other links, and clients' addresses are seen, or aren't
ramps    a slow start becomes longer, or ends, once an endpoint has all or a part of its share
pins     more clients are pinned than may be, or memory for pins is short
probed   an endpoint that refuses a client is asked from this node as clients wait for the kernel
ports    those of clients' addresses are in use, as clients dial that were served before
switched settings of a Service are switched on and off, one at a time, among clients
weighs   the weights of a Service change, and nothing else, among clients in bursts
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from random import Random
from typing import Any

import msgspec

from userspace_proxy.model import Balance, Handling, Protocol
from userspace_proxy.model.handling import Hold
from userspace_proxy.model.serving import Serving

from . import plan as plans
from .actors import FINISH, SEND
from .adding import Adding
from .network import ANSWERS, LATE, REFUSES
from .plan import Event, Plan
from .sockets import CLIENT_PORTS

_SHARES = {
    "dialled": 0.06,
    "client ports": 0.05,
    "switched": 0.07,
    "weights alone": 0.05,
    "probed": 0.04,
    "pins": 0.05,
    "restarts": 0.03,
    "unwatched": 0.03,
    "routes": 0.03,
    "ramps": 0.04,
}
"""Of the plans that have none of the others."""


def with_lone_situation(plan: Plan) -> Plan:
    """Return a plan with the first of these situations that its seed has."""
    for name, share in _SHARES.items():
        rng = Random(f"{plan.seed}: {name}")
        if rng.random() < share:
            return _SITUATIONS[name](Adding(rng, plan))
    return plan


def _dialled(adding: Adding) -> Plan:
    """A dial that was under way as its endpoint left may still be answered: it ends then."""
    rng, number = adding.rng, adding.number(Protocol.TCP)
    pool = adding.plan.services[number].pool
    handling = replace(
        adding.plan.services[number].serving.handling,
        removal_s=rng.choice((0.0, 0.5)),
        max_connections=None,
    )

    def events() -> Iterator[Event]:
        yield Event(0.0, plans.UPDATE, (number, Serving(pool, handling=handling)))
        for endpoint in pool:
            yield Event(0.0, plans.BEHAVE, (endpoint, (LATE,)))
        talk = [(0.7, SEND, 5)] * 16
        at = 1.0 + rng.random()
        for n in range(6):
            began = at - (0.4 if n % 2 else 0.02) * rng.random()
            yield adding.client(number, began, f"10.3.0.{n + 1}", talk)
        left = pool[: rng.randrange(len(pool))]
        yield Event(at, plans.UPDATE, (number, Serving(left, handling=handling)))

    return adding.with_events("dialled", events(), 7.0, adding.others(number))


def _client_ports(adding: Adding) -> Plan:
    """This node's address is used instead, but only for endpoints that have answered a client."""
    rng, number = adding.rng, adding.number(Protocol.TCP)
    planned = adding.plan.services[number]
    handling = replace(planned.serving.handling, keeps_clients=True, max_connections=None)
    serving = msgspec.structs.replace(planned.serving, handling=handling)
    adding.plan = replace(adding.plan, node=replace(adding.plan.node, is_preserving=True))

    def events() -> Iterator[Event]:
        yield Event(0.0, plans.UPDATE, (number, serving))
        for began in (0.2, 1.4, 3.5):
            for n in range(6):
                steps = [(rng.choice((0.1, 4.0)) * rng.random(), FINISH, 0)]
                at = began + 0.5 * rng.random()
                yield adding.client(number, at, f"10.3.0.{n % 4 + 1}", steps)
        yield Event(1.2, plans.LACK, (CLIENT_PORTS, 1.5))

    return adding.with_events("client ports", events(), 6.0, adding.others(number))


def _switched(adding: Adding) -> Plan:
    """What a setting had begun ends with it, and begins anew when it is back."""
    rng, number = adding.rng, adding.number(Protocol.TCP)
    pool = adding.plan.services[number].pool
    settings: dict[str, tuple[Any, ...]] = {
        "hold": (None, Hold(30.0, 8), Hold(5.0, 5), Hold(1.0, 2)),
        "keeps_clients": (True, False),
        "max_connections": (None, 1, 2),
        "removal_s": (None, 0.5, 2.0),
        "slow_start_s": (0.0, 4.0),
        "affinity_timeout_s": (None, 1, 30),
    }
    balance = rng.choice([each for each in Balance if each is not Balance.SOURCE_HASH])
    now = {name: rng.choice(values) for name, values in settings.items()}
    is_weighted = rng.random() < 0.5
    weights = tuple((e, rng.choice((1, 2))) for e in pool)

    def serving() -> Serving:
        handling = {name: value for name, value in now.items() if name != "affinity_timeout_s"}
        return Serving(
            pool[rng.choice((0, 0, 1, len(pool))) :],
            weights=weights if is_weighted else (),
            affinity_timeout_s=now["affinity_timeout_s"],
            handling=Handling(balance=balance, **handling),
        )

    def events() -> Iterator[Event]:
        at = 0.0
        for _ in range(8):
            yield Event(round(at, 4), plans.UPDATE, (number, serving()))
            at += rng.choice((0.1, 0.5, 1.5)) * (0.5 + rng.random())
            name = rng.choice(tuple(settings))
            now[name] = rng.choice(settings[name])
        for n in range(40):
            steps = [(rng.choice((0.1, 3.0)) * rng.random(), FINISH, 0)]
            began = (at + 2.0) * rng.random()
            yield adding.client(number, began, f"10.3.0.{n % 6 + 1}", steps)

    return adding.with_events("switched", events(), 9.0, adding.others(number))


def _weighs(adding: Adding) -> Plan:
    """The endpoints are those of before, also as objects, and their shares are other ones."""
    rng, number = adding.rng, adding.number(Protocol.TCP)
    planned = adding.plan.services[number]
    handling = replace(
        planned.serving.handling,
        balance=rng.choice((Balance.SOURCE_HASH, *Balance)),
        max_connections=None,
        slow_start_s=0.0,
    )
    serving = Serving(planned.pool, handling=handling)

    def events() -> Iterator[Event]:
        at = 0.0
        for _ in range(3):
            weights = tuple((e, rng.choice((1, 2, 5, 40))) for e in planned.pool)
            serving_now = msgspec.structs.replace(serving, weights=weights)
            yield Event(at, plans.UPDATE, (number, serving_now))
            for n in range(8):
                steps = [(0.2 * rng.random(), FINISH, 0)]
                yield adding.client(number, at + 0.1 + rng.random(), f"10.3.0.{n + 1}", steps)
            at += 1.5

    return adding.with_events("weights alone", events(), 5.0, adding.others(number))


def _probed(adding: Adding) -> Plan:
    """The answer to this node counts before the clients go on that had no watch for their dials.

    Only one endpoint has connections, so the others are due while they aren't ejected.
    """
    rng, number = adding.rng, adding.number(Protocol.TCP)
    pool = adding.plan.services[number].pool
    handling = Handling(balance=Balance.LEAST_CONNECTIONS)
    node = replace(adding.plan.node, is_preserving=True, descriptor_limit=1000)
    adding.plan = replace(adding.plan, node=node)
    denied = [f"10.3.0.{n + 1}" for n in range(6)]

    def events() -> Iterator[Event]:
        yield Event(0.0, plans.UPDATE, (number, Serving(pool[:1], handling=handling)))
        for n in range(3):
            yield adding.client(number, 0.1 * rng.random(), f"10.3.0.{n + 20}", [(20.0, SEND, 1)])
        yield Event(0.4, plans.UPDATE, (number, Serving(pool, handling=handling)))
        for endpoint in pool[1:]:
            yield Event(0.4, plans.DENY, (endpoint, tuple(denied), REFUSES))
        for n, ip in enumerate(denied):
            at = 1.0 + 0.7 * n
            yield Event(at - 0.12, plans.LACK, ("watches", 0.11))
            for _ in range(2):
                steps = [(0.2 * rng.random(), FINISH, 0)]
                yield adding.client(number, at - 0.1 * rng.random(), "10.3.0.30", steps)
            yield adding.client(number, at, ip, [(0.2, FINISH, 0)])

    without = {plans.BEHAVE, plans.DENY, plans.LACK, plans.MEMORY, plans.STOP, plans.SKIP}
    kept = [event for event in adding.others(number) if event.what not in without]
    return adding.with_events("probed", events(), 6.0, kept)


def _restarts(adding: Adding) -> Plan:
    """Its share grows from a tenth, as that of a new one does."""
    rng, number = adding.rng, adding.number(Protocol.TCP)
    pool = adding.plan.services[number].pool
    handling = Handling(
        balance=rng.choice((Balance.ROUND_ROBIN, Balance.LEAST_CONNECTIONS)), slow_start_s=20.0
    )

    def events() -> Iterator[Event]:
        yield Event(0.0, plans.UPDATE, (number, Serving(pool, handling=handling)))
        yield Event(0.0, plans.BEHAVE, (pool[0], (REFUSES,)))
        yield Event(2.0, plans.BEHAVE, (pool[0], (ANSWERS,)))
        steps = [(0.05, FINISH, 0)]
        for n in range(2 * len(pool)):
            yield adding.client(number, 0.1 + 0.2 * rng.random(), f"10.3.0.{n + 1}", steps)
        for n in range(10 * len(pool)):
            ip = f"10.3.0.{n % 250 + 1}"
            yield adding.client(number, 5.5 + 3.0 * rng.random(), ip, steps)

    without = {plans.BEHAVE, plans.DENY, plans.MEMORY, plans.STOP, plans.SKIP}
    kept = [event for event in adding.others(number) if event.what not in without]
    return adding.with_events("restarts", events(), 10.0, kept)


def _ramps(adding: Adding) -> Plan:
    """No client comes in between, so that only the change looks at how far an endpoint is."""
    rng, number = adding.rng, adding.number(Protocol.TCP)
    pool = adding.plan.services[number].pool
    if len(pool) < 2:
        return adding.plan
    handling = Handling(balance=Balance.ROUND_ROBIN, slow_start_s=4.0)
    before = Serving(pool, weights=tuple((e, 2) for e in pool), handling=handling)
    # It has all of its share by then, or a third of it.
    at, seconds = rng.choice(((5.0, 20.0), (2.0, 0.0)))
    after = msgspec.structs.replace(before, handling=replace(handling, slow_start_s=seconds))

    def events() -> Iterator[Event]:
        first = msgspec.structs.replace(before, endpoints=pool[1:], weights=before.weights[1:])
        yield Event(0.0, plans.UPDATE, (number, first))
        yield Event(0.5, plans.UPDATE, (number, before))
        yield Event(at, plans.UPDATE, (number, after))
        for n in range(15 * len(pool)):
            ip, began = f"10.3.0.{n % 250 + 1}", at + 0.1 + 1.5 * rng.random()
            yield adding.client(number, began, ip, [(0.05, FINISH, 0)])

    without = {plans.BEHAVE, plans.DENY, plans.LACK, plans.MEMORY, plans.STOP, plans.SKIP}
    kept = [event for event in adding.others(number) if event.what not in without]
    return adding.with_events("ramps", events(), 8.0, kept)


def _unwatched(adding: Adding) -> Plan:
    """Clients that wait for the kernel have their time, too, and are dialled for no more then."""
    rng, number = adding.rng, adding.number(Protocol.TCP)

    def events() -> Iterator[Event]:
        at = 0.5 + rng.random()
        for n in range(6):
            began = at + 0.6 * rng.random() - 0.2
            yield adding.client(number, began, f"10.3.0.{n + 1}", [(1.0, SEND, 5)])
        yield Event(at, plans.LACK, (rng.choice(("watches", "descriptors", "memory")), 4.0))

    return adding.with_events("lacking", events(), 7.0, adding.plan.events)


def _routes(adding: Adding) -> Plan:
    """What was known of an address, or of a pair, isn't any more."""
    rng, plan = adding.rng, adding.plan
    if any(each.protocol is Protocol.UDP for each in plan.services):
        return plan
    number = adding.number(Protocol.TCP)
    adding.plan = replace(plan, node=replace(plan.node, is_preserving=True))
    handling = replace(plan.services[number].serving.handling, max_connections=None)
    serving = Serving(plan.services[number].pool, handling=handling)
    one = f"10.2.{number}.0/24"
    changes = (
        (("10.2.0.0/16",), (), True),
        ((), (("10.2.0.0/16", 7),), True),
        ((), (("10.2.0.0/16", 5),), True),
        ((), ((one, 7),), True),
        ((), ((one, 6), ("10.2.0.0/16", 7)), True),
        ((one,), (), True),
        (("10.3.0.0/17",), (("10.3.0.0/24", 5),), True),
        ((), (), False),
    )

    def events() -> Iterator[Event]:
        yield Event(0.0, plans.UPDATE, (number, serving))
        for n in range(5):
            yield Event(round(0.5 + n + 0.3 * rng.random(), 4), plans.ROUTES, rng.choice(changes))
        for n in range(20):
            steps = [(0.3 * rng.random(), FINISH, 0)]
            yield adding.client(number, 6.0 * rng.random(), f"10.3.{n % 2 * 200}.1", steps)

    return adding.with_events("routes", events(), 8.0, adding.others(number))


def _pins(adding: Adding) -> Plan:
    """Pins go, in their order, and clients come back whose pins have stayed, or have gone."""
    rng, plan = adding.rng, adding.plan
    is_bound = rng.random() < 0.5
    adding.plan = replace(
        plan,
        node=replace(
            plan.node,
            max_pins=rng.choice((2, 4, 7)) if is_bound else plan.node.max_pins,
            memory_bytes=rng.choice((4096, 8192, 32768, 4 << 20)),
        ),
        features=plan.features if is_bound else plan.features | {"memory"},
    )
    tcp = [n for n, each in enumerate(plan.services) if each.protocol is Protocol.TCP]
    numbers = rng.sample(tcp, min(2, len(tcp)))

    def events() -> Iterator[Event]:
        for number in numbers:
            planned = plan.services[number]
            handling = replace(
                planned.serving.handling, max_connections=None, balance=Balance.RANDOM
            )
            serving = Serving(planned.pool, handling=handling, affinity_timeout_s=100)
            yield Event(0.0, plans.UPDATE, (number, serving))
        at = 0.1
        for _ in range(26):
            steps = [(rng.choice((0.02, 0.2)) * rng.random(), FINISH, 0)]
            ip = f"10.3.0.{rng.choice((4, 9)) * rng.random() + 1:.0f}"
            yield adding.client(rng.choice(numbers), at, ip, steps)
            at += rng.choice((0.01, 0.3)) * rng.random()
            if not is_bound and rng.random() < 0.15:
                yield Event(round(at, 4), plans.MEMORY, (rng.choice((0.91, 0.95, 1.0)),))
                at += 0.4
                yield Event(round(at, 4), plans.MEMORY, (0.5,))
                at += 0.3

    without = {plans.MEMORY, plans.STOP, plans.SKIP}
    if len(tcp) > len(numbers):
        kept = [e for e in plan.events if e.what not in without]
    else:
        gone = {plans.CLIENT, plans.UPDATE, *without}
        kept = [e for e in plan.events if e.what not in gone]
    return adding.with_events("pins", events(), 12.0, kept)


_SITUATIONS = {
    "dialled": _dialled,
    "client ports": _client_ports,
    "switched": _switched,
    "weights alone": _weighs,
    "probed": _probed,
    "pins": _pins,
    "restarts": _restarts,
    "unwatched": _unwatched,
    "routes": _routes,
    "ramps": _ramps,
}
