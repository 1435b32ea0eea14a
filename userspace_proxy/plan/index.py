"""Maps an address to the Services that have it: nearly always one, sometimes all of them."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable
from typing import Generic, TypeVar

from ..model import ServiceKey

At = TypeVar("At", bound=Hashable)


class ServiceIndex(Generic[At]):
    """Services by what they have: an address, an IP."""

    def __init__(self) -> None:
        self._services: dict[At, tuple[ServiceKey] | set[ServiceKey]] = {}

    def __getitem__(self, at: At) -> Collection[ServiceKey]:
        return self._services.get(at, ())

    def add(self, places: Iterable[At], service: ServiceKey) -> None:
        """Note that a Service is there; idempotent."""
        # One object for all of them: a set for each would be 200 bytes.
        alone = (service,)
        for at in places:
            have = self._services.setdefault(at, alone)
            if isinstance(have, set):
                have.add(service)
            elif have != alone:
                self._services[at] = {*have, service}

    def discard(self, places: Iterable[At], service: ServiceKey) -> None:
        """Note that a Service is no longer there; idempotent."""
        for at in places:
            have = self._services.get(at, ())
            if isinstance(have, set):
                have.discard(service)
            if not have or have == (service,):
                self._services.pop(at, None)
