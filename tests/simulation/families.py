"""IPv6: the addresses of a plan, of some of its Services or of all of them, in the other family.

Clients, endpoints, networks and frontends stay what they are to each other, so what is promised of
IPv4 is promised of IPv6, and judged by the same.
"""

from __future__ import annotations

import re
from dataclasses import replace
from random import Random
from typing import Any

import msgspec

from userspace_proxy.model import Protocol, SocketAddress
from userspace_proxy.model.serving import Serving

from . import plan as plans
from .addresses import ipv6_of
from .plan import Event, Plan, ServicePlan

_ALL, _UDP = 0.06, 0.12
"""Of all plans, and of those that have Services of UDP: these alone, as on a dual-stack node."""
_ADDRESS = re.compile(r"\d+\.\d+\.\d+\.\d+(/\d+)?")
# A PROXY header is sent by one call: a socket of Linux has room for it (SOCK_MIN_SNDBUF).
_HEADER_BYTES = 120
_IN_SERVING = "endpoints", "outside", "inside", "weights", "standbys"
# Events of one Service have its number here; others have an endpoint first.
_NUMBERS = {plans.CLIENT: 1, plans.ASK: 0, plans.UPDATE: 0, plans.ELSEWHERE: 0}


def with_families(plan: Plan) -> Plan:
    """Return a plan whose addresses are those that its seed has."""
    rng = Random(f"{plan.seed}: families")
    numbers = set(range(len(plan.services)))
    if rng.random() >= _ALL:
        numbers = {n for n in numbers if plan.services[n].protocol is Protocol.UDP}
        # Networks of several clients are of IPv6 alone.
        if rng.random() >= (0.5 if "crowded" in plan.features else _UDP):
            return plan
    pools = {endpoint for n in numbers for endpoint in plan.services[n].pool}
    if not pools:
        return plan

    def event(each: Event) -> Event:
        if each.what in _NUMBERS:
            is_changed = each.args[_NUMBERS[each.what]] in numbers
        else:
            is_changed = bool(each.args) and each.args[0] in pools
        return replace(each, args=_changed(each.args)) if is_changed else each

    def service(each: ServicePlan) -> ServicePlan:
        address, pool, serving = map(_changed, (each.address, each.pool, each.serving))
        return replace(each, address=address, pool=pool, serving=serving)

    def endpoint(each: SocketAddress) -> SocketAddress:
        return SocketAddress(*_changed(tuple(each))) if each in pools else each

    return replace(
        plan,
        features=plan.features | {"ipv6"},
        node=replace(plan.node, outbox_bytes=max(plan.node.outbox_bytes, _HEADER_BYTES)),
        services=tuple(service(s) if n in numbers else s for n, s in enumerate(plan.services)),
        events=tuple(map(event, plan.events)),
        scripts={endpoint(at): what for at, what in plan.scripts.items()},
        streams={endpoint(at): what for at, what in plan.streams.items()},
    )


def _changed(value: Any) -> Any:
    """Return a value with all addresses in it in the other family."""
    if isinstance(value, str):
        return ipv6_of(value) if _ADDRESS.fullmatch(value) else value
    if isinstance(value, SocketAddress):
        return SocketAddress(ipv6_of(value.ip), value.port)
    if isinstance(value, Serving):
        parts = {name: _changed(getattr(value, name)) for name in _IN_SERVING}
        return msgspec.structs.replace(value, **parts)
    if isinstance(value, tuple):
        return tuple(map(_changed, value))
    return value
