"""What clients may get, read from the objects of the API as JSON: shares no code with the product.

Rule 1: an address belongs to one Service port: cluster IPs before node ports and load balancers'
IPs before external IPs, then the older Service, then the name.
Rule 2: usable are ready endpoints, those that hints choose where hints choose some; if none is
ready, those that terminate and serve. With a policy ``Local`` only those of this node, whatever
hints say: for all clients inside, for clients from outside at external addresses.

Source: kubernetes.io/docs/reference/networking/virtual-ips, KEP-1669, KEP-2086, KEP-2433.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

from .plan import EXTERNAL_NETWORK, NODE, POD_NETWORK, Object

Key = tuple[str, str, str]
"""Kind, namespace and name of an object."""
Dialled = tuple[str, int, str]
"""Address, port and protocol."""

HOST: Key = ("Host", "", NODE)
"""Of what isn't an object of the API: the addresses of this node."""
_AT_NODE = ""
"""Instead of an address: each of the node's."""
_CLUSTER_IP, _NODE_PORT, _BALANCER, _EXTERNAL_IP = 0, 1, 1, 2
_SERVICE_NAME = "kubernetes.io/service-name"


def key_of(item: Object) -> Key:
    """Return the key of an object."""
    metadata = item["metadata"]
    return item["kind"], metadata.get("namespace", ""), metadata["name"]


@lru_cache(maxsize=4096)
def _in(network: str, ip: str) -> bool:
    return ipaddress.ip_address(ip) in ipaddress.ip_network(network)


class Expected(NamedTuple):
    """What one client may get at one address, in one state of the cluster."""

    service: str
    """``namespace/name:port``; empty: no Service is there."""
    endpoints: frozenset[tuple[str, int]] = frozenset()
    may_be_refused: bool = False
    may_be_dropped: bool = False


NO_SERVICE = Expected("", may_be_refused=True)


@dataclass(frozen=True)
class Claim:
    """One address of one Service port."""

    order: tuple[int, str, str, str, str]
    service: Object
    port: Object
    is_outside: bool
    """It is an external address, for which the external policy is."""
    has_ranges: bool

    @cached_property
    def kind(self) -> tuple[str, bool, bool]:
        """What its endpoints and clients depend on, beside the cluster."""
        return self.name, self.is_outside, self.has_ranges

    @cached_property
    def other_sides(self) -> Sequence[Claim]:
        """The address as if it had the policies of others of the same Service port."""
        sides = (False, False), (True, False), (True, True)
        claims = [replace(self, is_outside=out, has_ranges=ranges) for out, ranges in sides]
        return [claim for claim in claims if claim.kind != self.kind]

    @cached_property
    def name(self) -> str:
        metadata = self.service["metadata"]
        return f"{metadata['namespace']}/{metadata['name']}:{self.port['name']}"


class ClaimReader:
    """Reads what Services claim; those of one cluster are the same objects in many states."""

    def __init__(self) -> None:
        self._read: dict[int, tuple[Object, Sequence[tuple[Dialled, Claim]]]] = {}
        """By the number of the object, which is kept, so that no other one gets its number."""

    def claims(self, item: Object) -> Sequence[tuple[Dialled, Claim]]:
        """Return what a Service claims, and where."""
        known = self._read.get(id(item))
        if known is None:
            known = self._read[id(item)] = item, tuple(_claims(item))
        return known[1]


class Truth:
    """The cluster in one state.

    What is found is kept: each state is asked for each address again and again while it may be in
    force.
    """

    def __init__(self, objects: Mapping[Key, Object], reader: ClaimReader) -> None:
        self.objects = dict(objects)
        self._reader = reader
        self._expected: dict[tuple[tuple[str, bool, bool], str, Dialled], Expected] = {}
        self._usable_ones: dict[tuple[str, bool], frozenset[tuple[str, int]]] = {}
        self._elsewhere: dict[int, Truth] = {}
        """The same objects where the node has other addresses."""

    @cached_property
    def frontends(self) -> Mapping[Dialled, Claim]:
        """The owner of each address."""
        owners: dict[Dialled, Claim] = {}
        for at, claims in self._claims_at.items():
            # Of equal ones the first, which is that of the object that is first.
            allowed = [
                claim
                for claim in claims
                if at[0] not in self._cluster_ips or claim.order[0] != _EXTERNAL_IP
            ]
            if allowed:
                owners[at] = min(allowed, key=lambda claim: claim.order)
        return owners

    @cached_property
    def _claims_at(self) -> Mapping[Dialled, Sequence[Claim]]:
        claims: dict[Dialled, list[Claim]] = {}
        for item in self._of_kind("Service"):
            for at, claim in self._reader.claims(item):
                for ip in self._node_ips if at[0] == _AT_NODE else (at[0],):
                    claims.setdefault((ip, *at[1:]), []).append(claim)
        return claims

    @property
    def host(self) -> Object:
        """What has the node's addresses."""
        return self.objects[HOST]

    def at(self, host: Object) -> Truth:
        """Return the same objects at a node with other addresses."""
        if host is self.host:
            return self
        found = self._elsewhere.get(id(host))
        if found is None:
            found = Truth({**self.objects, HOST: host}, self._reader)
            self._elsewhere[id(host)] = found
        return found

    @cached_property
    def _node_ips(self) -> Sequence[str]:
        return tuple(self.host["addresses"])

    def claims_at(self, at: Dialled) -> Sequence[Claim]:
        """Return all that claim an address."""
        return self._claims_at.get(at, ())

    @cached_property
    def _cluster_ips(self) -> frozenset[str]:
        found = set()
        for item in self._of_kind("Service"):
            found.add(item["spec"]["clusterIP"])
            found.update(_balancer_ips(item))
        return frozenset(found)

    @cached_property
    def zone(self) -> str:
        node = self.objects.get(("Node", "", NODE))
        labels = node["metadata"].get("labels", {}) if node else {}
        return str(labels.get("topology.kubernetes.io/zone", ""))

    def _of_kind(self, kind: str) -> Iterator[Object]:
        return (item for key, item in self.objects.items() if key[0] == kind)

    def expected(self, client: str, at: Dialled) -> Expected:
        """Return what a client of that address may get."""
        return self.expected_of(self.frontends.get(at), client, at)

    def expected_of(self, claim: Claim | None, client: str, at: Dialled) -> Expected:
        """Return the same where the owner of the address is that of another state."""
        if claim is None:
            return NO_SERVICE
        key = claim.kind, client, at
        found = self._expected.get(key)
        if found is None:
            found = self._expected[key] = self._find_expected(claim, client, at)
        return found

    def _find_expected(self, before: Claim, client: str, at: Dialled) -> Expected:
        claim = self._now(before)
        if claim is None:
            return NO_SERVICE
        spec = claim.service["spec"]
        is_inside = _in(POD_NETWORK, client) or client in (*self._node_ips, at[0])
        everywhere = self._usable(claim, is_local=False)
        local = self._usable(claim, is_local=True)
        name = "externalTrafficPolicy" if claim.is_outside else "internalTrafficPolicy"
        is_local = spec.get(name) == "Local"
        endpoints = local if is_local and not (claim.is_outside and is_inside) else everywhere
        ranges = spec.get("loadBalancerSourceRanges", ()) if claim.has_ranges else ()
        if ranges and not any(_in(network, client) for network in ranges):
            # Without an endpoint the table refuses all clients.
            is_refusing = not (local if is_local else everywhere)
            return Expected(claim.name, may_be_refused=is_refusing, may_be_dropped=True)
        if endpoints:
            return Expected(claim.name, endpoints)
        return Expected(claim.name, may_be_refused=not everywhere, may_be_dropped=bool(everywhere))

    def bars(self, claim: Claim, client: str) -> bool:
        """Return whether a Service's source ranges keep a client from one of its addresses."""
        now = self._now(claim)
        ranges = now.service["spec"].get("loadBalancerSourceRanges", ()) if now else ()
        return claim.has_ranges and bool(ranges) and not any(_in(n, client) for n in ranges)

    def _now(self, claim: Claim) -> Claim | None:
        """Return a claim as the Service is now; None if there is no such Service port."""
        metadata = claim.service["metadata"]
        service = self.objects.get(("Service", metadata["namespace"], metadata["name"]))
        ports = [] if service is None else service["spec"]["ports"]
        port = next((each for each in ports if each["name"] == claim.port["name"]), None)
        if service is None or port is None:
            return None
        return replace(claim, service=service, port=port)

    def _usable(self, claim: Claim, *, is_local: bool) -> frozenset[tuple[str, int]]:
        # Within one state a Service port has one protocol.
        key = claim.name, is_local
        usable = self._usable_ones.get(key)
        if usable is None:
            usable = self._usable_ones[key] = self._find_usable(claim, is_local=is_local)
        return usable

    def _find_usable(self, claim: Claim, *, is_local: bool) -> frozenset[tuple[str, int]]:
        found = {
            at: endpoint
            for at, endpoint in self._endpoints(claim)
            if not is_local or endpoint.get("nodeName") == NODE
        }
        ready = {at: e for at, e in found.items() if _is(e, "ready")}
        if not is_local:
            ready = self._hinted(ready)
        if ready:
            return frozenset(ready)
        return frozenset(
            at for at, e in found.items() if _is(e, "serving") and _is(e, "terminating")
        )

    def _hinted(self, ready: dict[tuple[str, int], Object]) -> dict[tuple[str, int], Object]:
        for kind, own in (("forNodes", NODE), ("forZones", self.zone)):
            hints = {
                at: {each["name"] for each in e.get("hints", {}).get(kind, ())}
                for at, e in ready.items()
            }
            if own and hints and all(hints.values()) and any(own in h for h in hints.values()):
                return {at: e for at, e in ready.items() if own in hints[at]}
        return ready

    def _endpoints(self, claim: Claim) -> Iterator[tuple[tuple[str, int], Object]]:
        """Yield the endpoints of a Service port; of an address that is there twice the better."""
        best: dict[tuple[str, int], Object] = {}
        metadata = claim.service["metadata"]
        for item in self._slices_of(metadata):
            for port in item["ports"]:
                if (port["name"], port["protocol"]) != (claim.port["name"], claim.port["protocol"]):
                    continue
                for endpoint in item["endpoints"]:
                    at = (endpoint["addresses"][0], port["port"])
                    if at not in best or _rank(endpoint) > _rank(best[at]):
                        best[at] = endpoint
        yield from best.items()

    def _slices_of(self, service: Object) -> Iterator[Object]:
        """Yield the slices of a Service, by its metadata."""
        for item in self._of_kind("EndpointSlice"):
            of = item["metadata"].get("labels", {}).get(_SERVICE_NAME)
            if (item["metadata"]["namespace"], of) == (service["namespace"], service["name"]):
                yield item

    def _at_any_port(self, service: Object) -> Iterator[Object]:
        """Yield the endpoints of slices that have a port at all.

        Source: kube-proxy, whose endpoints are those of the ports that slices have.
        """
        for item in self._slices_of(service):
            yield from item["endpoints"] if item["ports"] else ()

    @cached_property
    def health_ports(self) -> Mapping[int, tuple[str, int]]:
        """The health check node ports: the Service, and how many ready endpoints are here."""
        found: dict[int, tuple[str, int]] = {}
        for item in self._of_kind("Service"):
            spec, metadata = item["spec"], item["metadata"]
            is_local = spec.get("externalTrafficPolicy") == "Local"
            number = spec.get("healthCheckNodePort", 0)
            if spec["type"] != "LoadBalancer" or not is_local or not number:
                continue
            best: dict[str, Object] = {}
            for endpoint in self._at_any_port(metadata):
                ip = endpoint["addresses"][0]
                if ip not in best or _rank(endpoint) > _rank(best[ip]):
                    best[ip] = endpoint
            ready = [e for e in best.values() if _is(e, "ready") and e.get("nodeName") == NODE]
            found[number] = (f"{metadata['namespace']}/{metadata['name']}", len(ready))
        return found


def _is(endpoint: Object, condition: str) -> bool:
    """Return whether an endpoint has a condition: one that isn't known is taken for a good one."""
    value = endpoint["conditions"].get(condition)
    return condition != "terminating" if value is None else bool(value)


def _rank(endpoint: Object) -> tuple[bool, bool, bool, bool]:
    is_here = endpoint.get("nodeName") == NODE
    is_terminating = _is(endpoint, "terminating")
    return not is_terminating, _is(endpoint, "ready"), _is(endpoint, "serving"), is_here


def _balancer_ips(item: Object) -> Iterable[str]:
    ingress = item.get("status", {}).get("loadBalancer", {}).get("ingress", ())
    return [each["ip"] for each in ingress]


def _claims(item: Object) -> Iterator[tuple[Dialled, Claim]]:
    spec, metadata = item["spec"], item["metadata"]
    who = metadata["creationTimestamp"], metadata["namespace"], metadata["name"]

    def claim(kind: int, port: Any, *, is_balancer: bool = False) -> Claim:
        order = (kind, *who, port["name"])
        return Claim(order, item, port, kind != _CLUSTER_IP, is_balancer)

    for port in spec["ports"]:
        number, protocol = port["port"], port["protocol"]
        yield (spec["clusterIP"], number, protocol), claim(_CLUSTER_IP, port)
        for ip in _balancer_ips(item):
            yield (ip, number, protocol), claim(_BALANCER, port, is_balancer=True)
        for ip in spec.get("externalIPs", ()):
            if _in(EXTERNAL_NETWORK, ip):
                yield (ip, number, protocol), claim(_EXTERNAL_IP, port)
        if port.get("nodePort"):
            yield (_AT_NODE, port["nodePort"], protocol), claim(_NODE_PORT, port)
