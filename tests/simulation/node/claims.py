"""The addresses that Services claim in the node's network, each for one of their ports.

Rule 1: an address belongs to one Service port: a claim as a cluster IP precedes one as a node port
or a load balancer's IP, which precedes one as an external IP; then the older Service, then the name
decides.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from .families import is_six, with_six
from .plan import Object, Settings
from .readings import balancer_ips, cluster_ips, is_in, name_of

Key = tuple[str, str, str]
"""Kind, namespace and name of an object."""
Dialled = tuple[str, int, str]
"""An address, port and protocol."""

Kind = tuple[str, bool, bool, bool]
"""The properties that claims depend on: the Service port, and its policy, ranges and family."""

AT_NODE = {False: "", True: ":"}
"""The placeholder for all addresses of the node in a family, by whether that is IPv6."""
_CLUSTER_IP, _NODE_PORT, _BALANCER, EXTERNAL_IP = 0, 1, 1, 2


def key_of(item: Object) -> Key:
    """Return the key of an object."""
    metadata = item["metadata"]
    return item["kind"], metadata.get("namespace", ""), metadata["name"]


@dataclass(frozen=True)
class Claim:
    """One address of one Service port."""

    order: tuple[int, str, str, str, str]
    service: Object
    port: Object
    is_outside: bool
    """Whether the address is external, so that the external policy applies."""
    has_ranges: bool
    is_six: bool

    @cached_property
    def kind(self) -> Kind:
        """The properties by which claims' endpoints and admitted clients differ."""
        return self.name, self.is_outside, self.has_ranges, self.is_six

    @cached_property
    def other_sides(self) -> Sequence[Claim]:
        """The same claim, with the policies that the Service port's other addresses have."""
        sides = (False, False), (True, False), (True, True)
        claims = [replace(self, is_outside=out, has_ranges=ranges) for out, ranges in sides]
        return [claim for claim in claims if claim.kind != self.kind]

    @cached_property
    def name(self) -> str:
        metadata, port = self.service["metadata"], name_of(self.port)
        name = f"{metadata['namespace']}/{metadata['name']}"
        return f"{name}:{port}" if port else name


class ClaimReader:
    """Reads the claims of each Service object once; states of a cluster share objects."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._read: dict[int, tuple[Object, Sequence[tuple[Dialled, Claim]]]] = {}
        """By the id() of the object, which is kept, so that no other object gets this id()."""

    def claims(self, item: Object) -> Sequence[tuple[Dialled, Claim]]:
        """Return a Service's claims."""
        known = self._read.get(id(item))
        if known is None:
            known = self._read[id(item)] = item, tuple(_claims(item, self.settings))
        return known[1]


def families_of(service: Object) -> Set[bool]:
    """Return a Service's IP families; True stands for IPv6."""
    return {is_six(ip) for ip in cluster_ips(service)}


def ranges_of(claim: Claim) -> Sequence[str]:
    """Return an address's source ranges; ranges of the other family don't restrict it."""
    if not claim.has_ranges:
        return ()
    ranges = claim.service["spec"].get("loadBalancerSourceRanges", ())
    return [network for network in ranges if is_six(network) is claim.is_six]


def _claims(item: Object, settings: Settings) -> Iterator[tuple[Dialled, Claim]]:
    spec, metadata = item["spec"], item["metadata"]
    who = metadata["creationTimestamp"], metadata["namespace"], metadata["name"]
    families = families_of(item)

    def claim(kind: int, port: Any, ip: str) -> Claim:
        order = (kind, *who, name_of(port))
        is_balancer = kind == _BALANCER and ip not in AT_NODE.values()
        return Claim(order, item, port, kind != _CLUSTER_IP, is_balancer, is_six(ip))

    for port in spec["ports"]:
        number, protocol = port["port"], port["protocol"]
        for ip in cluster_ips(item):
            yield (ip, number, protocol), claim(_CLUSTER_IP, port, ip)
        for ip in balancer_ips(item):
            if is_six(ip) in families:
                yield (ip, number, protocol), claim(_BALANCER, port, ip)
        for ip in spec.get("externalIPs", ()):
            networks = with_six(settings.external_networks)
            if is_six(ip) in families and any(is_in(network, ip) for network in networks):
                yield (ip, number, protocol), claim(EXTERNAL_IP, port, ip)
        for ip in (AT_NODE[each] for each in sorted(families)) if port.get("nodePort") else ():
            yield (ip, port["nodePort"], protocol), claim(_NODE_PORT, port, ip)
