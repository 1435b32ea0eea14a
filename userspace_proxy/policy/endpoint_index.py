"""Indexes the endpoints of one Service by address family and port name, for all its ports.

Rule 1: each slice is read once, and the cost of a look-up doesn't depend on how many slices and
ports there are: a Service may have any number of slices, each with up to 20,000 ports.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from typing import NamedTuple

from ..causes.slices import NAMES_SHOWN
from ..model import Endpoint, EndpointSlice, IPFamily, Protocol, SliceKey, SlicePort, SocketAddress

# The number of ports that are read before yielding; reading them takes about 15 ms.
_AT_ONCE = 20_000

_Named = list[tuple[SlicePort, EndpointSlice]]


class PortName(NamedTuple):
    """A Service port of one family and protocol, as slices list it."""

    family: IPFamily
    name: str
    """The port's name in the Service; may be empty."""
    protocol: Protocol


class EndpointIndex:
    """An index of the slices of one Service.

    Args:
        slices: All slices of the Service, of both families, in order. Slices with the label of
            headless Services aren't used. Source: kube-proxy's selector of EndpointSlices.
    """

    def __init__(self, slices: Sequence[EndpointSlice]) -> None:
        for _ in self._read(slices):
            pass

    @classmethod
    def in_turns(cls, slices: Sequence[EndpointSlice]) -> Generator[None, None, EndpointIndex]:
        """Create and return an index, as a generator that yields after each ``_AT_ONCE`` ports."""
        index = cls(())
        yield from index._read(slices)
        return index

    def _read(self, slices: Sequence[EndpointSlice]) -> Iterator[None]:
        self.headless = next((item for item in slices if item.is_headless), None)
        """The first slice with the label of headless Services; None if no slice has it."""
        if self.headless is not None:
            slices = [item for item in slices if not item.is_headless]
        self.slices = slices
        self._counts = dict.fromkeys(IPFamily, 0)
        self._named: dict[IPFamily, dict[str, _Named]] = {family: {} for family in IPFamily}
        """The ports by name, from slices with endpoints."""
        self._shown: dict[IPFamily, tuple[str, ...]] = {}
        self._unnumbered: dict[tuple[IPFamily, str], SliceKey] = {}
        """A slice with endpoints in which the port of this name has no number."""
        self._addresses: dict[IPFamily, int] = {}
        """The number of distinct addresses in the slices of a family."""
        self._weights: dict[SliceKey, set[int]] = {}
        """A cache of the weights in each slice."""
        self._listed = dict.fromkeys(IPFamily, 0)
        """The number of endpoints in the slices of a family, including duplicates."""
        count = 0
        for item in slices:
            self._listed[item.family] += len(item.endpoints)
            self._counts[item.family] += 1
            named = self._named[item.family]
            for port in item.ports if item.endpoints else ():
                named.setdefault(port.name, []).append((port, item))
            for name in item.unnumbered if item.endpoints else ():
                self._unnumbered[item.family, name] = item.key
            count += len(item.ports)
            if count >= _AT_ONCE:
                count = 0
                yield
        self._with_endpoints = {item.family for item in slices if item.endpoints}

    def slice_count(self, family: IPFamily) -> int:
        return self._counts[family]

    def has_endpoints(self, family: IPFamily) -> bool:
        """Return whether a slice of a family has an endpoint, regardless of ports."""
        return family in self._with_endpoints

    def count(self, family: IPFamily, name: str, protocol: Protocol) -> int:
        """Return how many endpoints of a Service port are in the slices, including duplicates."""
        return sum(len(item.endpoints) for _, item in self.found(family, name, protocol))

    def lacking(self, family: IPFamily, name: str, protocol: Protocol) -> tuple[int, int]:
        """Return how many addresses have a Service port, and how many addresses there are.

        Both are 0 if all addresses have the port, which is usually found without reading them.
        """
        found = [item for _, item in self.found(family, name, protocol)]
        if sum(len(item.endpoints) for item in found) >= self._listed[family]:
            return 0, 0
        have = len({endpoint.ip for item in found for endpoint in item.endpoints})
        if family not in self._addresses:
            others = (item for item in self.slices if item.family is family)
            every = {endpoint.ip for item in others for endpoint in item.endpoints}
            self._addresses[family] = len(every)
        total = self._addresses[family]
        return (have, total) if have < total else (0, 0)

    def weights(self, family: IPFamily, name: str, protocol: Protocol) -> set[int]:
        """Return the weights of the endpoints that slices list for a Service port."""
        found: set[int] = set()
        for _, item in self.found(family, name, protocol):
            if item.key not in self._weights:
                self._weights[item.key] = {endpoint.weight for endpoint in item.endpoints}
            found |= self._weights[item.key]
        return found

    def addresses(
        self, family: IPFamily, name: str, protocol: Protocol
    ) -> Iterator[tuple[SocketAddress, Endpoint]]:
        """Yield a Service port's endpoints with their addresses, by slice, including duplicates."""
        for port, item in self.found(family, name, protocol):
            number = port.port
            for endpoint in item.endpoints:
                yield SocketAddress(endpoint.ip, number), endpoint

    def protocols(self, family: IPFamily, name: str) -> list[str]:
        return sorted({port.protocol for port, _ in self._named[family].get(name, ())})

    def unnumbered(self, family: IPFamily, name: str) -> SliceKey | None:
        """Return a slice with endpoints in which this port has no number; None if there is none."""
        return self._unnumbered.get((family, name))

    def first_names(self, family: IPFamily) -> tuple[str, ...]:
        """Return the first ``NAMES_SHOWN`` port names in sorted order; a name may be empty."""
        if family not in self._shown:
            self._shown[family] = tuple(sorted(self._named[family])[:NAMES_SHOWN])
        return self._shown[family]

    def found(
        self, family: IPFamily, name: str, protocol: Protocol
    ) -> Iterator[tuple[SlicePort, EndpointSlice]]:
        """Yield the non-empty slices that list a Service port, each with its entry for the port."""
        for port, item in self._named[family].get(name, ()):
            if port.protocol == protocol:
                yield port, item
