"""Finds slices that were probably meant for a Service that has none."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence

from ..model import Cause, ServiceKey, SliceKey
from .causes import slice_elsewhere, slice_orphaned

# Names of one namespace that are compared: a few milliseconds.
_COMPARED_MAX = 1000
_SIMILARITY = 0.6


class Orphans:
    """Slices that name a Service that doesn't exist, by the Service that they name."""

    def __init__(self, slices: Mapping[ServiceKey, Sequence[SliceKey]]) -> None:
        self._slices = slices
        self._by_name: dict[str, list[ServiceKey]] = {}
        self._by_namespace: dict[str, list[ServiceKey]] = {}
        for key in sorted(slices):
            self._by_name.setdefault(key.name, []).append(key)
            self._by_namespace.setdefault(key.namespace, []).append(key)

    def meant_for(self, service: ServiceKey) -> Cause | None:
        """Return which slice was probably meant for a Service without slices, or None."""
        for key in self._by_name.get(service.name, ()):
            return slice_elsewhere(service, self._slices[key][0])
        names = {
            key.name: key for key in self._by_namespace.get(service.namespace, ())[:_COMPARED_MAX]
        }
        near = difflib.get_close_matches(service.name, names, n=1, cutoff=_SIMILARITY)
        if not near:
            return None
        return slice_orphaned(service, self._slices[names[near[0]]][0], near[0])

    def concerns(self, service: ServiceKey) -> bool:
        """Return whether a slice may have been meant for a Service, whatever the similarity."""
        return service.name in self._by_name or service.namespace in self._by_namespace
