"""Situations of UDP that are drawn apart from the rest of a plan, as those of ``own_situations``.

absent   no host has an endpoint's address, which the kernel finds out after three seconds
icmp     datagrams are lost on their way, and what reports it is no refusal
large    datagrams are so large that few are kept for a flow that waits, or is refused
oneway   an endpoint that answers nothing, and refuses nothing, is used again
ports    clients' addresses have few ports, which flows to several endpoints share
standby  an endpoint was put on standby a while ago, and flows begin as the others refuse
returns  an endpoint that has answered a flow doesn't answer it for a while, and does again
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from random import Random

import msgspec

from userspace_proxy.model import Protocol, SocketAddress
from userspace_proxy.model.handling import Hold
from userspace_proxy.model.serving import Serving

from . import plan as plans
from .network import ABSENT, ANSWERS, EXCEEDED, REFUSES, SILENT, TOO_LARGE, Address
from .plan import Event, Plan, ServicePlan

_SHARES = {
    "absent": 0.1,
    "icmp": 0.08,
    "large": 0.1,
    "oneway": 0.05,
    "ports": 0.08,
    "returns": 0.04,
}
_ON_STANDBY = 0.06
# As on a node, a datagram of any size fits.
_BUFFER_BYTES = 4000
# More than the flows of one client, so that none finds all in use: sockets are closed a bit later.
_CLIENT_PORTS, _SAME_CLIENT = 9, 6


def with_udp_situations(plan: Plan) -> Plan:
    """Return a plan with the situations that its seed has, too."""
    numbers = [n for n, each in enumerate(plan.services) if each.protocol is Protocol.UDP]
    rng = Random(f"{plan.seed}: situations of UDP")
    drawn = [name for name, share in _SHARES.items() if rng.random() < share]
    for name in drawn if numbers else ():
        plan = _SITUATIONS[name](Adding(rng, plan, rng.choice(numbers)))
    # Drawn apart, so that those above stay what they were.
    apart = Random(f"{plan.seed}: standby of UDP")
    numbers = [n for n in numbers if len(plan.services[n].pool) > 1]
    if numbers and not drawn and apart.random() < _ON_STANDBY:
        plan = _on_standby(Adding(apart, plan, apart.choice(numbers)))
    return plan


class Adding:
    """Adds to one plan, for one Service."""

    def __init__(self, rng: Random, plan: Plan, number: int) -> None:
        self.rng = rng
        self.plan = plan
        self.number = number
        self.service: ServicePlan = plan.services[number]
        self.pool = self.service.pool

    def ask(self, client: Address, at: float, size: int = 0, hops: int = 64) -> Event:
        """Return that a client sends a datagram, of that size if it isn't 0."""
        return Event(round(at, 4), plans.ASK, (self.number, client, hops, 1, size))

    def behave(self, endpoint: SocketAddress, at: float, *how: str) -> Event:
        """Return what datagrams meet at an endpoint from then on."""
        return Event(round(at, 4), plans.BEHAVE, (endpoint, how))

    def plan_with(self, events: Iterator[Event], lasts_s: float) -> Plan:
        """Return the plan with more events; it is calm no sooner than after that many seconds."""
        return replace(
            self.plan,
            events=tuple(sorted((*self.plan.events, *events), key=lambda event: event.at)),
            calm_at=max(self.plan.calm_at, lasts_s),
        )

    def keep_addresses(self) -> None:
        """Have endpoints see clients' own addresses, in most plans."""
        if self.rng.random() < 0.8:
            self.plan = replace(self.plan, node=replace(self.plan.node, is_preserving=True))


def _absent(adding: Adding) -> Plan:
    """Clients ask again and again; some were refused by an endpoint before."""
    rng = adding.rng
    adding.keep_addresses()
    if rng.random() < 0.35:
        return _leaves_later(adding)

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

    return adding.plan_with(events(), 14.0)


def _leaves_later(adding: Adding) -> Plan:
    """A client goes on sending to an endpoint that answers nothing, and whose host leaves."""
    rng = adding.rng
    about = {adding.number, *adding.pool}
    kept = tuple(e for e in adding.plan.events if about.isdisjoint(e.args[:1]))
    adding.plan = replace(adding.plan, events=kept)

    def events() -> Iterator[Event]:
        left = 4.0 + 4.0 * rng.random()
        for endpoint in adding.pool:
            yield adding.behave(endpoint, 0.0, SILENT)
            yield adding.behave(endpoint, left, ABSENT)
        for n in range(rng.randint(1, 3)):
            for asked in range(20):
                yield adding.ask((f"10.3.0.{n + 1}", 44100), 0.3 + 1.1 * asked + 0.1 * n)

    return adding.plan_with(events(), 23.0)


def _icmp(adding: Adding) -> Plan:
    """A hop limit is exceeded on the way, or a datagram is too large for it."""
    rng = adding.rng

    def events() -> Iterator[Event]:
        began = 2.0 * rng.random()
        for endpoint in adding.pool:
            how = rng.choice(((EXCEEDED,), (TOO_LARGE, ANSWERS), (ANSWERS, EXCEEDED, TOO_LARGE)))
            yield adding.behave(endpoint, began, *how)
            yield adding.behave(endpoint, began + 3.0, ANSWERS)
        for n in range(rng.randint(2, 8)):
            client = f"10.3.0.{n % 3 + 1}", 45000 + n
            for _ in range(rng.randint(1, 4)):
                yield adding.ask(client, began + 0.01 + 3.5 * rng.random())

    return adding.plan_with(events(), 6.0)


def _large(adding: Adding) -> Plan:
    """Bursts of datagrams of all sizes, for endpoints that refuse, or for none."""
    rng, number = adding.rng, adding.number
    node = replace(adding.plan.node, buffer_bytes=_BUFFER_BYTES, bulk_bytes=_BUFFER_BYTES // 4)
    adding.plan = replace(adding.plan, node=node)
    serving = adding.service.serving
    hold = Hold(rng.choice((5.0, 30.0)))
    none = msgspec.structs.replace(
        serving,
        endpoints=(),
        outside=None if serving.outside is None else (),
        weights=(),
        standbys=(),
        handling=replace(serving.handling, hold=hold),
    )
    is_none = rng.random() < 0.5

    def events() -> Iterator[Event]:
        began = 2.0 * rng.random()
        if is_none:
            yield Event(began, plans.UPDATE, (number, none))
            yield Event(began + 2.5, plans.UPDATE, (number, serving))
        else:
            for endpoint in rng.sample(adding.pool, max(1, len(adding.pool) - 1)):
                yield adding.behave(endpoint, began, REFUSES)
                yield adding.behave(endpoint, began + 1.5, ANSWERS)
        most = rng.choice((700, 1500, 3500))
        for n in range(rng.randint(1, 4)):
            at = began + 0.05 + rng.random()
            for _ in range(rng.randint(2, 10)):
                size, hops = rng.randint(most // 4, most), rng.choice((64, 64, 63))
                yield adding.ask((f"10.3.0.{n + 1}", 46000), at, size, hops)
                at += rng.choice((0.0001, 0.02))

    return adding.plan_with(events(), 6.0)


def _oneway(adding: Adding) -> Plan:
    """A client goes on sending; meanwhile another worker reports that its endpoint has failed."""
    rng, endpoint = adding.rng, adding.rng.choice(adding.pool)

    def events() -> Iterator[Event]:
        began = rng.random()
        for each in adding.pool:
            yield adding.behave(each, began, SILENT)
            yield adding.behave(each, began + 9.0, ANSWERS)
        reported_s = began + rng.choice((0.6, 2.0, 3.5))
        yield Event(reported_s, plans.ELSEWHERE, (adding.number, endpoint, "failed"))
        for n in range(rng.randint(1, 4)):
            for asked in range(8):
                yield adding.ask((f"10.3.0.{n + 1}", 48000), began + 0.1 * n + 0.3 + 0.9 * asked)
        for n in range(8):
            yield adding.ask((f"10.3.0.{n + 1}", 48001), began + 4.5 + 0.3 * n)

    return adding.plan_with(events(), 11.0)


def _ports(adding: Adding) -> Plan:
    """Ports are used in turn, again and again, and some of a client's flows have them already."""
    rng = adding.rng
    adding.keep_addresses()
    node = replace(adding.plan.node, client_ports=_CLIENT_PORTS)
    # What an endpoint sends after a flow's end would reach the next flow from its port.
    streams = {**adding.plan.streams, **dict.fromkeys(adding.pool, (0.5, 0))}
    # After a stop all of a client's flows may begin in one turn, and one that ends keeps its port
    # until the turn is over.
    left_out = (plans.ASK, plans.STOP, plans.SKIP)
    kept = tuple(e for e in adding.plan.events if e.what not in left_out)
    adding.plan = replace(adding.plan, node=node, streams=streams, events=kept)

    def events() -> Iterator[Event]:
        began = rng.random()
        for n in range(rng.randint(16, 30)):
            # As few flows of a client as it has ports: others take their turns in between.
            is_same = n % 2 == 0 and n < 2 * _SAME_CLIENT
            ip = "10.3.0.77" if is_same else f"10.3.0.{n % 6 + 80}"
            yield adding.ask((ip, 47000 + n), began + 0.05 * n)
            for again in range(rng.choice((0, 1, 2))):
                yield adding.ask((ip, 47000 + n), began + 2.0 + 1.2 * again + 0.03 * n)

    return adding.plan_with(events(), 7.0)


def _returns(adding: Adding) -> Plan:
    """As ``silent`` of the own situations, and the endpoint answers again; reports go on."""
    rng, plan = adding.rng, adding.plan
    client = "10.3.0.1", 43001
    # Nothing else has them answer meanwhile, or ends the flow.
    about = {adding.number, *adding.pool}
    kept = tuple(e for e in plan.events if e.what == plans.ASK or about.isdisjoint(e.args[:1]))
    streams = {**plan.streams, **dict.fromkeys(adding.pool, (0.5, 0))}
    flows = replace(plan.node, udp_idle_s=None, max_flows=1000)
    node = replace(flows, loss=0.0, descriptor_limit=1000)
    adding.plan = replace(plan, node=node, events=kept, streams=streams)

    def events() -> Iterator[Event]:
        began = rng.random()
        yield Event(0.0, plans.UPDATE, (adding.number, Serving(adding.pool)))
        silent_s = began + 6.0
        for endpoint in adding.pool:
            yield adding.behave(endpoint, silent_s, SILENT)
            yield adding.behave(endpoint, silent_s + 18.0, ANSWERS)
        for n in range(22):
            yield adding.ask(client, began + 0.5 + 1.5 * n)
            yield Event(round(began + 1.5 + 1.5 * n, 4), plans.REPORT)

    return adding.plan_with(events(), 36.0)


def _on_standby(adding: Adding) -> Plan:
    """Flows to it that begin later, or had no answer yet, go on when those of before end."""
    rng, number, plan = adding.rng, adding.number, adding.plan
    about = {number, *adding.pool}
    kept = tuple(e for e in plan.events if about.isdisjoint(e.args[:1]))
    node = replace(plan.node, udp_idle_s=None, max_flows=1000, descriptor_limit=1000)
    adding.plan = replace(plan, node=node, events=kept)
    one, *others = adding.pool
    handling = replace(adding.service.serving.handling, removal_s=3.0, max_connections=None)
    before = Serving(adding.pool, handling=handling)
    after = msgspec.structs.replace(before, standbys=((one, 1),))

    def events() -> Iterator[Event]:
        yield Event(0.0, plans.UPDATE, (number, before))
        yield adding.behave(one, 0.0, ANSWERS)
        at_first = rng.choice((ANSWERS, SILENT))
        for endpoint in others:
            yield adding.behave(endpoint, 0.0, at_first)
            yield adding.behave(endpoint, 1.2, REFUSES)
            yield adding.behave(endpoint, 9.0, ANSWERS)
        yield Event(1.0, plans.UPDATE, (number, after))
        for n in range(6):
            began = 0.3 + 0.5 * n + 0.3 * rng.random()
            for asked in range(4):
                yield adding.ask((f"10.3.0.{n + 1}", 49000), began + 1.1 * asked)
        # Its first datagram is still kept as it is refused.
        for at in (0.8, 1.3, 2.4, 3.5, 4.6):
            yield adding.ask(("10.3.0.7", 49000), at)

    return adding.plan_with(events(), 11.0)


_SITUATIONS: dict[str, Callable[[Adding], Plan]] = {
    "absent": _absent,
    "icmp": _icmp,
    "large": _large,
    "oneway": _oneway,
    "ports": _ports,
    "returns": _returns,
}
