"""Allocates cluster IPs to Services whose manifests don't name one.

``namespace/name`` ──Pool──▶ an address in the range of each family that the Service requests
"""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Iterable, Mapping, Sequence

from ...errors import ConfigError
from ...model import IPFamily, ServiceKey
from .pool import NAMES_MAX, Pool, low_band
from .written import Problem, WrittenService

Ranges = Mapping[IPFamily, "ClusterIPRange"]
"""The ranges by family; the first family is the default for Services."""

_HINT = "write a range as 10.96.0.0/16"


class ClusterIPRange:
    """The addresses of one range.

    Raises:
        ConfigError: The text isn't an address range.
    """

    def __init__(self, cidr: str) -> None:
        network = _network(cidr)
        self.cidr = cidr
        self.family = IPFamily(network.version)
        # Exclude the network's own address and, in IPv4, the broadcast address.
        first = min(1, network.num_addresses - 1)
        count = max(1, network.num_addresses - (2 if network.version == 4 else 1))
        low = low_band(count, share=16, most=256)

        @functools.lru_cache(maxsize=NAMES_MAX)
        def address_at(number: int) -> str:
            return str(network[first + number])

        self.pool: Pool[str] = Pool(count, low, address_at)


def open_ranges(cidrs: Sequence[str]) -> Ranges:
    """Return the ranges by family, in order: one, or two of different families.

    Raises:
        ConfigError: There is no range, or an invalid one, or two of one family.
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
) -> tuple[dict[ServiceKey, tuple[str, ...]], list[Problem]]:
    """Return each Service's addresses, in the order of its families, and failed allocations."""
    configured = tuple(ranges)
    wanted: list[tuple[ServiceKey, Sequence[IPFamily]]] = []
    ips: dict[IPFamily, dict[ServiceKey, str]] = {family: {} for family in IPFamily}
    wanting: dict[IPFamily, dict[str, ServiceKey]] = {family: {} for family in IPFamily}
    for item in services:
        key = item.service.key
        for ip in item.service.cluster_ips:
            ips[IPFamily.of(ip)][key] = ip
        families = item.wanted_families(configured)
        wanted.append((key, families))
        for family in families:
            if key not in ips[family]:
                wanting[family][str(key)] = key
    problems = [
        problem
        for family in IPFamily
        for problem in _allocate(family, wanting[family], ranges, ips[family])
    ]
    addresses = {
        key: tuple([ips[family][key] for family in families if key in ips[family]])
        for key, families in wanted
    }
    return addresses, problems


def _allocate(
    family: IPFamily,
    wanting: Mapping[str, ServiceKey],
    ranges: Ranges,
    ips: dict[ServiceKey, str],
) -> list[Problem]:
    """Add addresses of one family to ``ips`` for the ``wanting`` Services; return the problems."""
    if family in ranges:
        problem = f"spec.clusterIP: no address is left in {ranges[family].cidr}"
        allocated = ranges[family].pool.allocate(wanting, taken=set(ips.values()))
        for name, ip in allocated.items():
            ips[wanting[name]] = ip
    else:
        problem = f"spec.ipFamilies: --service-cluster-ip-range has no {family} addresses"
    return [(key, problem) for key in wanting.values() if key not in ips]


def _network(cidr: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    problem = f"{cidr!r} is a single address"
    try:
        if "/" in cidr:
            return ipaddress.ip_network(cidr)
    except ValueError as exc:
        problem = str(exc)
    raise ConfigError(f"cannot allocate cluster IPs: {problem}", hint=_HINT)
