"""Allocates cluster IPs to Services whose manifests don't name any.

namespace/name ──Pool──▶ an address of the range
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterable, Mapping, Sequence

from ..errors import ConfigError
from ..model import IPFamily
from .pool import Pool, low_band

_HINT = "write a range as 10.96.0.0/16"


class ClusterIPs:
    """Gives out the addresses of one range; see :class:`Pool` for who gets which.

    Args:
        cidr: The range, as ``10.96.0.0/16``.

    Raises:
        ConfigError: It isn't a range of addresses.
    """

    def __init__(self, cidr: str) -> None:
        network = _network(cidr)
        self.cidr = cidr
        self.family = IPFamily(network.version)
        self._network = network
        # Neither the network's own address nor, in IPv4, the broadcast one.
        first = min(1, network.num_addresses - 1)
        count = max(1, network.num_addresses - (2 if network.version == 4 else 1))
        low = low_band(count, share=16, most=256)
        self._pool: Pool[str] = Pool(count, low, lambda n: str(network[first + n]))

    @property
    def given(self) -> Mapping[str, str]:
        """Who has which address, also of those that went away."""
        return self._pool.given

    def remember(self, given: Mapping[str, str]) -> None:
        """Take over what ``given`` was before a restart; what isn't in the range is left out."""
        self._pool.remember({name: ip for name, ip in given.items() if self._holds(ip)})

    def allocate(self, wanting: Iterable[str], *, taken: Collection[str]) -> dict[str, str]:
        """Return the address of each Service that names none.

        Args:
            wanting: All of them, as ``namespace/name``.
            taken: Addresses that manifests name, in canonical form.

        Returns:
            Without those for whom no address is left.
        """
        return self._pool.allocate(wanting, taken=taken)

    def _holds(self, ip: str) -> bool:
        try:
            address = ipaddress.ip_address(ip)
        except ValueError:
            return False
        return address in self._network and str(address) == ip


def open_ranges(cidrs: Sequence[str]) -> dict[IPFamily, ClusterIPs]:
    """Return the ranges by family, the family of Services that ask for none first.

    Raises:
        ConfigError: One isn't a range, there is none, or two are of one family.
    """
    ranges: dict[IPFamily, ClusterIPs] = {}
    for cidr in cidrs:
        new = ClusterIPs(cidr)
        old = ranges.setdefault(new.family, new)
        if old is not new:
            raise ConfigError(
                f"cannot allocate cluster IPs: {old.cidr} and {cidr} are both {new.family}",
                hint="write one range of each family",
            )
    if not ranges:
        raise ConfigError("cannot allocate cluster IPs: no range is given", hint=_HINT)
    return ranges


def _network(cidr: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    problem = f"{cidr!r} is a single address"
    try:
        if "/" in cidr:
            return ipaddress.ip_network(cidr)
    except ValueError as exc:
        problem = str(exc)
    raise ConfigError(f"cannot allocate cluster IPs: {problem}", hint=_HINT)
