"""Gives Services of a plan both IP families, each with its own endpoints, or only IPv6.

The drawn events apply to both: each address and each slice has an IPv6 counterpart. Services with
UDP stay IPv4-only.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from random import Random
from typing import Any

from ..plan import Event
from .claims import Key, key_of
from .families import six, with_six
from .plan import ADDRESSES, CLIENT, DELETE, PUT, Object, Plan
from .readings import balancer_ips, cluster_ips

FAMILIES = 0.05
"""The share of plans with both families."""

_BOTH, _SIX_FIRST, _SIX, _FOUR = "both", "IPv6 first", "IPv6", "IPv4"
_KINDS = (_BOTH, _BOTH, _SIX_FIRST, _SIX, _FOUR)
# The share of a Service's versions that have only the first family.
_GIVEN_UP = 0.15


def with_families(rng: Random, plan: Plan) -> Plan:
    """Return a plan with both families."""
    families = _Families(rng, plan.objects, plan.events)
    return replace(
        plan,
        features=plan.features | {"two families"},
        objects=tuple(each for item in plan.objects for each in families.objects(item)),
        events=tuple(families.events(plan.events)),
        addresses=with_six(plan.addresses),
    )


class _Families:
    """The families of one plan's Services."""

    def __init__(self, rng: Random, objects: Sequence[Object], events: Iterable[Event]) -> None:
        self._rng = rng
        self._kinds: dict[Key, str] = {}
        puts = [event.args[0] for event in events if event.what == PUT]
        for item in (*objects, *puts):
            if item["kind"] == "Service":
                self._kinds.setdefault(key_of(item), rng.choice(_KINDS))
                if any(port["protocol"] == "UDP" for port in item["spec"].get("ports", ())):
                    self._kinds[key_of(item)] = _FOUR

    def objects(self, item: Object) -> Iterator[Object]:
        """Yield a Service or Node with both families, or a slice and its counterpart."""
        kind = item["kind"]
        if kind == "Service":
            yield self._service(item)
        elif kind == "Node":
            yield _node(item)
        else:
            yield item
            yield self._slice(item)

    def events(self, events: Iterable[Event]) -> Iterator[Event]:
        """Yield the events, with events of the counterparts."""
        for event in events:
            what, args = event.what, event.args
            if what == PUT:
                for item in self.objects(args[0]):
                    yield Event(event.at, PUT, (item,))
            elif what == DELETE and args[0][0] == "EndpointSlice":
                kind, namespace, name = args[0]
                yield event
                yield Event(event.at, DELETE, ((kind, namespace, _counterpart(name)),))
            elif what == ADDRESSES:
                yield Event(event.at, ADDRESSES, (with_six(args[0]),))
            elif what == CLIENT and args[1][2] == "TCP" and self._rng.random() < 0.5:
                ip, (to, *more), hold_s = args
                yield Event(event.at, CLIENT, (six(ip), (six(to), *more), hold_s))
            else:
                yield event

    def _service(self, item: Object) -> Object:
        rng, kind, fours = self._rng, self._kinds[key_of(item)], cluster_ips(item)
        if kind == _FOUR or not fours:
            return item
        sixes = [six(ip) for ip in fours]
        ips = {_BOTH: [*fours, *sixes], _SIX_FIRST: [*sixes, *fours], _SIX: sixes}[kind]
        if rng.random() < _GIVEN_UP:
            ips = ips[: len(fours)]
        spec: dict[str, Any] = {**item["spec"], "clusterIP": ips[0], "clusterIPs": ips}
        if external := spec.get("externalIPs"):
            spec["externalIPs"] = [*with_six(external)]
        if (ranges := spec.get("loadBalancerSourceRanges")) and rng.random() < 0.7:
            spec["loadBalancerSourceRanges"] = [*with_six(ranges)]
        ingress = [{"ip": ip} for ip in with_six(balancer_ips(item))]
        status = {"loadBalancer": {"ingress": ingress}} if ingress else item.get("status", {})
        return {**item, "spec": spec, "status": status}

    def _slice(self, item: Object) -> Object:
        """Return the IPv6 counterpart of a slice, which may lack an endpoint."""
        ends = [{**e, "addresses": [six(ip) for ip in e["addresses"]]} for e in item["endpoints"]]
        if ends and self._rng.random() < 0.3:
            del ends[self._rng.randrange(len(ends))]
        metadata = {**item["metadata"], "name": _counterpart(item["metadata"]["name"])}
        return {**item, "addressType": "IPv6", "metadata": metadata, "endpoints": ends}


def _counterpart(name: str) -> str:
    return f"{name}-six"


def _node(item: Object) -> Object:
    addresses = with_six(each["address"] for each in item["status"]["addresses"])
    return {
        **item,
        "spec": {"podCIDRs": [*with_six(item["spec"]["podCIDRs"])]},
        "status": {"addresses": [{"type": "InternalIP", "address": ip} for ip in addresses]},
    }
