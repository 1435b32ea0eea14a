"""Allocates cluster IPs to Services whose manifests name none.

``namespace/name`` ──Pool──▶ an address of the range of each family that the Service asks for
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from ...errors import ConfigError
from ...model import IPFamily, ServiceKey
from .pool import Pool, low_band
from .written import Problem, WrittenService

Ranges = Mapping[IPFamily, "ClusterIPRange"]
"""The family of Services that ask for none is the first one."""

_HINT = "write a range as 10.96.0.0/16"


class ClusterIPRange:
    """The addresses of one range.

    Raises:
        ConfigError: It isn't a range of addresses.
    """

    def __init__(self, cidr: str) -> None:
        network = _network(cidr)
        self.cidr = cidr
        self.family = IPFamily(network.version)
        # Without the network's own address and, in IPv4, the broadcast address.
        first = min(1, network.num_addresses - 1)
        count = max(1, network.num_addresses - (2 if network.version == 4 else 1))
        low = low_band(count, share=16, most=256)
        self.pool: Pool[str] = Pool(count, low, lambda n: str(network[first + n]))


def open_ranges(cidrs: Sequence[str]) -> Ranges:
    """Return one range, or two of different families, by family in their order.

    Raises:
        ConfigError: One isn't a range, there is none, or two are of one family.
    """
    ranges: dict[IPFamily, ClusterIPRange] = {}
    for cidr in cidrs:
        new = ClusterIPRange(cidr)
        old = ranges.setdefault(new.family, new)
        if old is not new:
            raise ConfigError(
                f"cannot allocate cluster IPs: {old.cidr} and {cidr} are both {new.family}",
                hint="write one range of each family",
            )
    if not ranges:
        raise ConfigError("cannot allocate cluster IPs: no range is given", hint=_HINT)
    return ranges


def allocate_cluster_ips(
    services: Iterable[WrittenService], ranges: Ranges
) -> tuple[list[WrittenService], list[Problem]]:
    """Return all Services in their order, with an address of each family that they ask for."""
    wanted = [(item, item.wanted_families(ranges.keys())) for item in services]
    problems: list[Problem] = []
    ips = {family: _of_family(family, wanted, ranges, problems) for family in IPFamily}
    allocated = []
    for item, families in wanted:
        service = item.service
        found = (ips[family].get(service.key) for family in families)
        cluster_ips = tuple(ip for ip in found if ip)
        if cluster_ips != service.cluster_ips:
            item = replace(item, service=replace(service, cluster_ips=cluster_ips))
        allocated.append(item)
    return allocated, problems


def _of_family(
    family: IPFamily,
    wanted: Iterable[tuple[WrittenService, Sequence[IPFamily]]],
    ranges: Ranges,
    problems: list[Problem],
) -> Mapping[ServiceKey, str]:
    """Return the addresses of one family, those that manifests name and allocated ones."""
    ips: dict[ServiceKey, str] = {}
    wanting: dict[str, ServiceKey] = {}
    for item, families in wanted:
        key = item.service.key
        named = [ip for ip in item.service.cluster_ips if IPFamily.of(ip) is family]
        if named:
            ips[key] = named[-1]
        elif family in families:
            wanting[str(key)] = key
    if family in ranges:
        problem = f"spec.clusterIP: no address is left in {ranges[family].cidr}"
        allocated = ranges[family].pool.allocate(wanting, taken=set(ips.values()))
        ips |= {wanting[name]: ip for name, ip in allocated.items()}
    else:
        problem = f"spec.ipFamilies: --service-cluster-ip-range has no {family} addresses"
    problems.extend((key, problem) for key in wanting.values() if key not in ips)
    return ips


def _network(cidr: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    problem = f"{cidr!r} is a single address"
    try:
        if "/" in cidr:
            return ipaddress.ip_network(cidr)
    except ValueError as exc:
        problem = str(exc)
    raise ConfigError(f"cannot allocate cluster IPs: {problem}", hint=_HINT)
