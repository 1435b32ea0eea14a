"""Finds slices that were probably meant for a Service that has none.

Two names are similar if one letter is wrong, missing or too much, or two neighbours are swapped:
then they share a variant, which is a name with at most one letter left out. So finding one takes
some lookups, however many names there are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from ..model import Cause, ServiceKey, SliceKey
from .causes import slice_elsewhere, slice_orphaned

# Shorter ones say nothing: all names of one letter would be similar.
_VARIANT_MIN = 2


class Orphans:
    """Slices that name a Service that doesn't exist, by the Service that they name."""

    def __init__(self, slices: Mapping[ServiceKey, Sequence[SliceKey]]) -> None:
        self._slices = slices
        self._by_name: dict[str, ServiceKey] = {}
        self._by_variant: dict[ServiceKey, ServiceKey] = {}
        for key in sorted(slices):
            self._by_name.setdefault(key.name, key)
            for variant in _variants(key):
                self._by_variant.setdefault(variant, key)

    def meant_for(self, service: ServiceKey) -> Cause | None:
        """Return which slice was probably meant for a Service without slices, or None."""
        elsewhere = self._by_name.get(service.name)
        if elsewhere is not None:
            return slice_elsewhere(service, self._slices[elsewhere][0])
        near = self._similar(service)
        return None if near is None else slice_orphaned(service, self._slices[near][0], near.name)

    def concerns(self, service: ServiceKey) -> bool:
        """Return whether a slice may have been meant for a Service."""
        return service.name in self._by_name or self._similar(service) is not None

    def _similar(self, service: ServiceKey) -> ServiceKey | None:
        found = (self._by_variant.get(variant) for variant in _variants(service))
        return next((key for key in found if key is not None), None)


def _variants(key: ServiceKey) -> Iterator[ServiceKey]:
    """Yield a name, and it without each of its letters."""
    yield key
    if len(key.name) > _VARIANT_MIN:
        for at in range(len(key.name)):
            yield ServiceKey(key.namespace, key.name[:at] + key.name[at + 1 :])
