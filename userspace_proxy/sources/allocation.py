"""Cluster IPs for Services whose manifests name none.

    namespace/name ──hash──▶ an address of the range ──taken?──▶ the next one …

Rule 1: addresses that manifests name come first, whoever they belong to.
Rule 2: who has an address keeps it while the program runs and nobody names it.
Rule 3: after a restart the hash gives the same address. Only where two names meet on one
address may they change places then; keeping that too needs a file, which is to come.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Collection, Iterable, Mapping

from ..errors import ConfigError
from ..model import ServiceKey


class ClusterIPs:
    """Gives out the addresses of one range.

    Args:
        cidr: The range, as ``10.96.0.0/16``.

    Raises:
        ConfigError: It isn't a range of addresses.
    """

    def __init__(self, cidr: str) -> None:
        network = _network(cidr)
        self.cidr = cidr
        self._network = network
        # Neither the network's own address nor, in IPv4, the broadcast one.
        self._first = min(1, network.num_addresses - 1)
        self._count = max(1, network.num_addresses - (2 if network.version == 4 else 1))
        self._low = _low_band(self._count)
        self._given: dict[ServiceKey, str] = {}

    def allocate(
        self, wanting: Iterable[ServiceKey], *, taken: Collection[str]
    ) -> Mapping[ServiceKey, str]:
        """Return the address of each Service that names none.

        Args:
            wanting: All of them; who isn't among them any more gives its address back.
            taken: Addresses that manifests name, in canonical form.

        Returns:
            Without those for whom no address is left.
        """
        wanting = sorted(set(wanting))
        used = set(taken)
        kept: dict[ServiceKey, str] = {}
        for key in wanting:
            ip = self._given.get(key)
            if ip is not None and ip not in used:
                kept[key] = ip
                used.add(ip)
        for key in wanting:
            if key not in kept and (ip := self._next_free(key, used)) is not None:
                kept[key] = ip
                used.add(ip)
        self._given = kept
        return dict(kept)

    def _next_free(self, key: ServiceKey, used: Collection[str]) -> str | None:
        """Probe the upper part of the range from the name's place on, then the lower one."""
        high = self._count - self._low
        start = int.from_bytes(hashlib.sha256(str(key).encode()).digest()) % high
        # One more than is used always suffices, also in an IPv6 range of 2⁶⁴ addresses.
        steps = len(used) + 1
        for step in range(min(high, steps)):
            ip = self._address(self._low + (start + step) % high)
            if ip not in used:
                return ip
        for offset in range(min(self._low, steps)):
            ip = self._address(offset)
            if ip not in used:
                return ip
        return None

    def _address(self, offset: int) -> str:
        return str(self._network[self._first + offset])


def _network(cidr: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    problem = f"{cidr!r} is a single address"
    try:
        if "/" in cidr:
            return ipaddress.ip_network(cidr)
    except ValueError as exc:
        problem = str(exc)
    raise ConfigError(
        f"cannot allocate cluster IPs: {problem}", hint="write a range as 10.96.0.0/16"
    )


def _low_band(count: int) -> int:
    """Return how many addresses at the start are left for people to name.

    Source: KEP-3070, min(max(16, size / 16), 256); nothing in a range of 16 or fewer.
    """
    return 0 if count <= 16 else min(max(16, count // 16), 256)
