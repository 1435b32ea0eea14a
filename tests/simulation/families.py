"""Translates all addresses of a plan to IPv6.

Clients, endpoints, networks and frontends keep their relations, so the guarantees for IPv4
also apply to IPv6, and the same oracles judge them.
"""

from __future__ import annotations

import re
from dataclasses import replace
from random import Random
from typing import Any

import msgspec

from userspace_proxy.model import SocketAddress
from userspace_proxy.model.serving import Serving

from .addresses import ipv6_of
from .plan import Plan, ServicePlan

_SHARE = 0.1
_ADDRESS = re.compile(r"\d+\.\d+\.\d+\.\d+(/\d+)?")
# The minimum size of a send buffer: a PROXY header must fit, because it is sent in one call (real
# buffers have SOCK_MIN_SNDBUF or more).
_HEADER_BYTES = 120
_IN_SERVING = "endpoints", "outside", "inside", "weights", "standbys", "leaving"


def with_families(plan: Plan) -> Plan:
    """Return a plan with addresses of the family that its seed selects."""
    if Random(f"{plan.seed}: families").random() >= _SHARE:
        return plan

    def service(each: ServicePlan) -> ServicePlan:
        address, pool, serving = map(_changed, (each.address, each.pool, each.serving))
        return replace(each, address=address, pool=pool, serving=serving)

    return replace(
        plan,
        features=plan.features | {"ipv6"},
        node=replace(plan.node, outbox_bytes=max(plan.node.outbox_bytes, _HEADER_BYTES)),
        services=tuple(map(service, plan.services)),
        events=tuple(replace(each, args=_changed(each.args)) for each in plan.events),
        scripts={_changed(at): what for at, what in plan.scripts.items()},
        streams={_changed(at): what for at, what in plan.streams.items()},
    )


def _changed(value: Any) -> Any:
    """Return a value with each IPv4 address replaced by its IPv6 counterpart."""
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
