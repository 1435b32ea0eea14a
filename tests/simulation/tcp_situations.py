"""Situations of TCP clients, drawn separately from the rest of a plan.

shared   endpoints of one Service are endpoints of another one, too
moved    a listener of one Service accepts for another one while both have clients

A plan may have several of these; if it has none, it may have one of the others:

leaves   an endpoint leaves, its Service changes repeatedly, and its connections end in time;
         in some plans the Service requests their end only later
switched settings of a Service are switched on and off, one at a time, among clients
lacking  the kernel lacks a resource for longer than clients may wait
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
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
from .network import ANSWERS, REFUSES, SILENT, UNREACHABLE
from .plan import Event, Plan

_TOGETHER = {"shared": 0.15, "moved": 0.1}
_ALONE = {
    "leaves": 0.06,
    "switched": 0.1,
    "lacking": 0.04,
}
_REMOVAL_S = 5.0


def with_tcp_situations(plan: Plan) -> Plan:
    """Return a plan with the situations that its seed selects."""
    tcp = [n for n, each in enumerate(plan.services) if each.protocol is Protocol.TCP]
    before = plan
    for name, share in _TOGETHER.items():
        rng = Random(f"{plan.seed}: {name}")
        if rng.random() < share and len(tcp) > 1:
            plan = _SITUATIONS[name](Adding(rng, plan))
    for name, share in _ALONE.items():
        rng = Random(f"{plan.seed}: {name}")
        if plan is before and rng.random() < share:
            return _SITUATIONS[name](Adding(rng, plan))
    return plan


def _shared(adding: Adding) -> Plan:
    """Add clients of two Services whose common endpoints fail for both, or for some clients."""
    rng, plan = adding.rng, adding.plan
    one, other = adding.two()
    pool = plan.services[one].pool
    services = list(plan.services)
    handling = services[other].serving.handling
    services[other] = replace(services[other], pool=pool, serving=Serving(pool, handling=handling))
    is_preserving = plan.node.is_preserving or rng.random() < 0.5
    node = replace(plan.node, is_preserving=is_preserving)
    adding.plan = replace(plan, node=node, services=tuple(services))
    at = 0.5 * plan.calm_at * rng.random()

    def events() -> Iterator[Event]:
        for endpoint in pool:
            how = rng.choice((REFUSES, SILENT, UNREACHABLE, ANSWERS))
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

    kept = [e for e in adding.others(other) if e.what != plans.ELSEWHERE or e.args[0] != other]
    return adding.with_events("shared", events(), plan.calm_at, kept)


def _moved(adding: Adding) -> Plan:
    """Add clients of two Services while a listener of one begins to accept for the other."""
    rng, plan = adding.rng, adding.plan
    one, other = adding.two()
    at = round(0.5 * plan.calm_at * rng.random(), 4)

    def events() -> Iterator[Event]:
        yield Event(at, plans.MOVE_LISTENER, (one, other))
        if rng.random() < 0.4:
            # The client's own Service is gone, so clients that wait for an endpoint are closed.
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


def _leaves(adding: Adding) -> Plan:
    """Remove endpoints, and change their Service again while the connections end.

    In half of the plans, the Service requests only later that their connections are closed.
    """
    rng, number = adding.rng, adding.number(Protocol.TCP)
    planned = adding.plan.services[number]
    asked = replace(planned.serving.handling, removal_s=_REMOVAL_S)
    # Draw this separately, so that the rest of these plans stays the same.
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
        # The removed endpoints become standbys.
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

    # Other changes would add the endpoint again.
    kept = [e for e in adding.plan.events if e.what != plans.UPDATE or e.args[0] != number]
    return adding.with_events("removal", events(), 16.0, kept)


def _switched(adding: Adding) -> Plan:
    """Add clients of a Service while its settings are switched on and off."""
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


def _unwatched(adding: Adding) -> Plan:
    """Add clients while the kernel lacks a resource for longer than they may wait."""
    rng, number = adding.rng, adding.number(Protocol.TCP)

    def events() -> Iterator[Event]:
        at = 0.5 + rng.random()
        for n in range(6):
            began = at + 0.6 * rng.random() - 0.2
            yield adding.client(number, began, f"10.3.0.{n + 1}", [(1.0, SEND, 5)])
        yield Event(at, plans.LACK, (rng.choice(("watches", "descriptors", "memory")), 4.0))

    return adding.with_events("lacking", events(), 7.0, adding.plan.events)


_SITUATIONS: dict[str, Callable[[Adding], Plan]] = {
    "shared": _shared,
    "moved": _moved,
    "leaves": _leaves,
    "switched": _switched,
    "lacking": _unwatched,
}
