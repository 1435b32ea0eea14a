"""Maps an address to the Services that have it: nearly always one, sometimes all of them."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable
from typing import Generic, TypeVar

from ..model import ServiceKey

Address = TypeVar("Address", bound=Hashable)


class ServiceIndex(Generic[Address]):
    """Services by address, IP or port number; ``add`` and ``discard`` are idempotent."""

    def __init__(self) -> None:
        self._services: dict[Address, tuple[ServiceKey] | set[ServiceKey]] = {}

    def __getitem__(self, address: Address) -> Collection[ServiceKey]:
        return self._services.get(address, ())

    def add(self, addresses: Iterable[Address], service: ServiceKey) -> None:
        """Enter a Service at these addresses."""
        # One object for all of them: a set for each would be 200 bytes.
        alone = (service,)
        for address in addresses:
            have = self._services.setdefault(address, alone)
            if isinstance(have, set):
                have.add(service)
            elif have != alone:
                self._services[address] = {*have, service}

    def discard(self, addresses: Iterable[Address], service: ServiceKey) -> None:
        """Remove a Service from these addresses."""
        for address in addresses:
            have = self._services.get(address, ())
            if isinstance(have, set):
                have.discard(service)
            if not have or have == (service,):
                self._services.pop(address, None)
