"""Situations of flows that need places, ports, or an endpoint that stays: as ``udp_situations``.

alone    an endpoint goes on sending to clients that ask once, while others need places
crowded  the table is full, of one client, of one /64 of IPv6, or of one Service
leaves   an endpoint terminates, serves those that it has, and stops, or is back
denied   what an endpoint refuses is reported in other ways, before and after its answers
lowered  limits and places are lowered while flows have them, or wait
ports    other programs leave few source ports at the node's address
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from random import Random

from userspace_proxy.model import Protocol, SocketAddress
from userspace_proxy.model.handling import Balance, Hold
from userspace_proxy.model.serving import Serving

from . import plan as plans
from .network import ANSWERS, DENIED, NO_PROTOCOL, REFUSES, UNREACHABLE
from .plan import Event, Plan, ServicePlan
from .udp_situations import Adding

_SHARES = {"alone": 0.04, "crowded": 0.07, "denied": 0.05, "lowered": 0.05, "source ports": 0.05}
_LEAVING_SHARE = 0.08
# More than a client's sixteen, and twice more than a Service port's or a network's.
_PLACES = 34, 40


def with_flow_situations(plan: Plan) -> Plan:
    """Return a plan with the situation that its seed has, too."""
    numbers = [n for n, each in enumerate(plan.services) if each.protocol is Protocol.UDP]
    rng = Random(f"{plan.seed}: situations of flows")
    drawn = [name for name, share in _SHARES.items() if rng.random() < share]
    if plan.node.client_ports and "alone" in drawn:
        # What an endpoint goes on sending would reach the next flow from the same port.
        drawn.remove("alone")
    if numbers and not drawn:
        return _with_leaving(plan, numbers)
    if not numbers:
        return plan
    name = rng.choice(drawn)
    plan = _SITUATIONS[name](Adding(rng, plan, rng.choice(numbers)))
    return replace(plan, features=plan.features | {name})


def _with_leaving(plan: Plan, numbers: Sequence[int]) -> Plan:
    """Return a plan without one of the others with this one, if its seed has it."""
    rng = Random(f"{plan.seed}: endpoints that leave")
    if rng.random() >= _LEAVING_SHARE:
        return plan
    plan = _leaves(Adding(rng, plan, rng.choice(numbers)))
    return replace(plan, features=plan.features | {"leaves"})


def _served(adding: Adding) -> None:
    """Have a Service answer from the start, without limits, and no other changes."""
    plan = adding.plan
    handling = replace(adding.service.serving.handling, max_connections=None)
    begin = Event(0.0, plans.UPDATE, (adding.number, Serving(adding.pool, handling=handling)))
    about = {adding.number, *adding.pool}
    kept = [e for e in plan.events if e.what == plans.ASK or about.isdisjoint(e.args[:1])]
    adding.plan = replace(plan, events=(begin, *kept))


def _alone(adding: Adding) -> Plan:
    """Some clients ask once, and their endpoint sends again and again; the rest are idle."""
    rng = adding.rng
    _served(adding)
    streams = dict.fromkeys(adding.pool, rng.choice(((2.5, 14), (7.0, 8), (20.0, 8))))
    node = replace(
        adding.plan.node,
        max_flows=rng.choice((4, 6, 1000)),
        udp_idle_s=rng.choice((None, 3.0)),
        descriptor_limit=1000,
    )
    adding.plan = replace(adding.plan, node=node, streams={**adding.plan.streams, **streams})
    quiet = adding.pool[: len(adding.pool) // 2]

    def events() -> Iterator[Event]:
        for n in range(3):
            yield adding.ask((f"10.3.0.{n + 1}", 49000), 0.2 + 0.3 * rng.random())
        for endpoint in quiet:
            yield adding.behave(endpoint, 1.0 + rng.random(), REFUSES)
            yield adding.behave(endpoint, 4.0, ANSWERS)
        for n in range(8):
            yield adding.ask((f"10.3.0.{n + 1}", 49001), 1.0 + 9.5 * rng.random())

    return adding.plan_with(events(), 11.0)


def _crowded(adding: Adding) -> Plan:
    """One client, the clients of one /64, or those of one Service have most places."""
    rng, places = adding.rng, adding.rng.choice(_PLACES)
    _served(adding)
    plan = adding.plan
    what = rng.choice(("client", "network", "service"))
    node = replace(plan.node, max_flows=places, udp_idle_s=None, descriptor_limit=1000)
    other = len(plan.services)
    pool = tuple(SocketAddress(f"10.2.{other}.{n + 1}", 80) for n in range(2))
    second = ServicePlan(Protocol.UDP, (f"10.96.0.{other + 1}", 1000 + other), pool, Serving(pool))
    adding.plan = replace(
        plan,
        node=node,
        services=(*plan.services, second),
        scripts={**plan.scripts, **dict.fromkeys(pool, ((),))},
        streams={**plan.streams, **dict.fromkeys((*pool, *adding.pool), (0.5, 0))},
    )

    def ask(number: int, ip: str, port: int, at: float) -> Event:
        return Event(round(at, 4), plans.ASK, (number, (ip, port), 64, 1))

    def crowd() -> Iterator[tuple[int, str, int]]:
        many = rng.randint(17, places // 2 + 6)
        for n in range(many):
            ip = "10.3.0.1" if what == "client" else f"10.3.0.{n % (many // 2) + 1}"
            yield adding.number, ip, 50000 + n
        for n in range(places - many + rng.randint(0, 3)):
            number = other if what == "service" else rng.choice((adding.number, other))
            ip = f"10.3.{rng.choice((200, 201))}.{n % 9 + 1}"
            yield number, ip, 51000 + n

    def events() -> Iterator[Event]:
        flows = list(crowd())
        rng.shuffle(flows)
        for n, (number, ip, port) in enumerate(flows):
            yield ask(number, ip, port, 0.3 + 0.02 * n)
            if rng.random() < 0.5:
                yield ask(number, ip, port, 2.0 + rng.choice((0.5, 3.0)) * rng.random())
        for n in range(rng.randint(3, 10)):
            at = 3.0 + 3.0 * rng.random()
            yield ask(rng.choice((adding.number, other)), f"10.3.202.{n + 1}", 52000, at)

    return adding.plan_with(events(), 8.0)


def _denied(adding: Adding) -> Plan:
    """Refusals of all kinds, and those that may pass, of which a flow with an answer takes none."""
    rng = adding.rng
    _served(adding)
    hows = (DENIED, NO_PROTOCOL, REFUSES, UNREACHABLE)

    def events() -> Iterator[Event]:
        for n in range(rng.randint(2, 5)):
            client = f"10.3.0.{n + 1}", 53000
            for asked in range(rng.randint(1, 8)):
                yield adding.ask(client, 0.3 + 0.5 * asked + 0.3 * rng.random())
        for endpoint in adding.pool:
            at = 0.1 + 2.5 * rng.random()
            yield adding.behave(endpoint, at, rng.choice(hows))
            if rng.random() < 0.6:
                # What is reported, and what a client sends next, are there at once.
                stop_s = rng.choice((0.05, 0.4))
                for asked in range(4):
                    client = f"10.3.0.{asked % 2 + 1}", 53000
                    yield adding.ask(client, at + 0.001 + 0.3 * stop_s * asked)
                yield Event(round(at + 0.005, 4), plans.STOP, (stop_s,))
            yield adding.behave(endpoint, at + rng.choice((0.5, 1.5)), ANSWERS)

    return adding.plan_with(events(), 6.0)


def _lowered(adding: Adding) -> Plan:
    """Fewer flows may wait than do, or for less time, or endpoints may have fewer than they do."""
    rng, number = adding.rng, adding.number
    node = replace(adding.plan.node, udp_idle_s=3.0, max_flows=1000)
    before, after = rng.choice(
        (
            (Hold(30.0, 9), Hold(30.0, 2)),
            (Hold(30.0, 9), Hold(1.0, 9)),
            (Hold(30.0, 9), None),
            (Hold(30.0, 3), Hold(30.0, 9)),
        )
    )
    limits = rng.choice(((None, None), (3, 1), (2, 1), (1, 3)))
    handling = replace(adding.service.serving.handling, balance=rng.choice(_BALANCES))
    is_none = limits == (None, None)

    def serving(limit: int | None, hold: Hold | None, *, has_any: bool) -> Serving:
        own = replace(handling, hold=hold, max_connections=limit)
        return Serving(adding.pool if has_any else (), handling=own)

    def events() -> Iterator[Event]:
        yield Event(0.0, plans.UPDATE, (number, serving(limits[0], before, has_any=not is_none)))
        many = 7 if is_none else 3 * len(adding.pool) + 5
        for n in range(many):
            yield adding.ask((f"10.3.0.{n % 4 + 1}", 54000 + n), 0.3 + 0.7 * rng.random())
        yield Event(1.5, plans.UPDATE, (number, serving(limits[1], after, has_any=not is_none)))
        for n in range(4):
            yield adding.ask((f"10.3.0.{n % 4 + 1}", 54100 + n), 1.6 + 2.0 * rng.random())
        yield Event(4.5, plans.UPDATE, (number, serving(limits[1], after, has_any=True)))

    about = {number, *adding.pool}
    kept = tuple(e for e in adding.plan.events if about.isdisjoint(e.args[:1]))
    adding.plan = replace(adding.plan, node=node, events=kept)
    return adding.plan_with(events(), 10.0)


def _source_ports(adding: Adding) -> Plan:
    """Each client has a flow of its own, and there are fewer ports than clients."""
    rng = adding.rng
    _served(adding)
    ports = rng.choice((2, 5, 18))
    node = replace(
        adding.plan.node,
        source_ports=ports,
        max_flows=1000,
        descriptor_limit=1000,
        is_preserving=adding.plan.node.is_preserving and rng.random() < 0.3,
    )
    adding.plan = replace(adding.plan, node=node)

    def events() -> Iterator[Event]:
        for n in range(ports + rng.randint(2, 9)):
            client = f"10.3.0.{n % 5 + 1}", 55000 + n
            at = 0.3 + 0.06 * n
            for _ in range(rng.choice((1, 1, 2, 3))):
                yield adding.ask(client, at)
                at += rng.choice((0.2, 2.0))

    return adding.plan_with(events(), 6.0)


def _leaves(adding: Adding) -> Plan:
    """Its clients go on sending, new ones get others, and the Service may change meanwhile."""
    rng, number, pool = adding.rng, adding.number, adding.pool
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

    return adding.plan_with(events(), 10.0)


# Where limits are, a client's endpoint isn't fixed.
_BALANCES = tuple(each for each in Balance if each is not Balance.SOURCE_HASH)
_SITUATIONS: dict[str, Callable[[Adding], Plan]] = {
    "alone": _alone,
    "crowded": _crowded,
    "denied": _denied,
    "lowered": _lowered,
    "source ports": _source_ports,
}
