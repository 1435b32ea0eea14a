"""Finds orphaned slices, which were probably meant for a Service without slices.

Two names are similar if one letter is wrong, missing or extra, or two adjacent letters are swapped.
Such names share a variant, a name with at most one letter removed, so a search takes a few
look-ups, however many names there are. Names are also similar if they differ only by a suffix
(``landing``, ``landing-v2``): a Service was renamed, but its hand-written slice wasn't.

A slice that names no Service was probably meant for the Service whose name is a prefix of the
slice's name (``web-1``).

Rule 1: the first ``ORPHANS_MAX`` Service names of each namespace, in sorted order, are considered.
Rule 2: the cost of a change depends on the names that change, not on the number of names.
Rule 3: a slice in another namespace is attributed to a Service only if it names the Service
exactly. The cause contains the slice's name, so it is shown only where all namespaces are shown,
and never in an Event.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Callable, Generator, Hashable, Iterable, Iterator, Mapping
from typing import TypeVar

from ..causes.cause import Cause
from ..causes.slices import slice_elsewhere, slice_orphaned, slice_unlabelled
from ..cluster import PersistentMap, Slices, differing_keys
from ..cluster.slices import NO_SLICES
from ..model import ServiceKey, SliceKey

ORPHANS_MAX = 200
"""The number of names considered per namespace; a name's variants, at most 64, take 17 KB."""
# The minimum length of a variant: "ab" and "ac" aren't similar, although both become "a".
_VARIANT_MIN = 2

_At = TypeVar("_At", bound=Hashable)
_Slices = Mapping[ServiceKey, Slices]


class Orphans:
    """The slices that name a missing Service or no Service, by the Service probably meant."""

    def __init__(self) -> None:
        self._slices: _Slices = PersistentMap()
        self._names: dict[str, list[ServiceKey]] = {}
        """The sorted names of each namespace."""
        self._by_name: dict[str, tuple[ServiceKey, ...]] = {}
        self._by_variant: dict[ServiceKey, tuple[ServiceKey, ...]] = {}
        """The considered names, by variant."""

    def change(self, slices: _Slices) -> Generator[None, None, Callable[[ServiceKey], bool]]:
        """Replace all slices, and update the names that differ; yield between steps.

        Returns: A function that returns whether the change may concern a Service.
        """
        changed = differing_keys(self._slices, slices)
        before_change, self._slices = self._slices, slices
        names: set[str] = set()
        variants: set[ServiceKey] = set()
        nameless = {key for key in changed if not key.name}
        beside: set[ServiceKey] = set()
        for key in nameless:
            have = before_change.get(key, NO_SLICES)
            for old, new in have.differing(slices.get(key, NO_SLICES)):
                if (one := old or new) and not (old and new):
                    beside.update(_first_parts(one.key))
                yield
        in_order = sorted(changed := changed - nameless)
        for namespace, keys in itertools.groupby(in_order, key=lambda key: key.namespace):
            before = self._considered(namespace)
            self._follow(namespace, keys)
            now = self._considered(namespace)
            for key in before ^ now | changed & now:
                self._enter(key, is_in=key in now)
                names.add(key.name)
                variants.update(_variants(key), _stem(key))
                yield
        namespaces = {key.namespace for key in variants}

        def concerns(service: ServiceKey) -> bool:
            if service.name in names or service in beside:
                return True
            if service.namespace not in namespaces:
                return False
            return not variants.isdisjoint((*_variants(service), *_stem(service)))

        return concerns

    def meant_for(self, service: ServiceKey) -> Cause | None:
        """Return a cause naming a slice probably meant for a Service without slices, or None."""
        elsewhere = self._by_name.get(service.name)
        if elsewhere is not None:
            return slice_elsewhere(service, next(iter(self._slices[min(elsewhere)])).key)
        near = self._similar(service)
        if near is not None:
            return slice_orphaned(service, next(iter(self._slices[near])).key, near.name)
        beside = self._beside(service)
        return None if beside is None else slice_unlabelled(service, beside)

    def _beside(self, service: ServiceKey) -> SliceKey | None:
        """Return a slice without a Service whose name begins with this Service's name, or None."""
        slices = self._slices.get(ServiceKey(service.namespace, ""), NO_SLICES)
        for start in (service.name, f"{service.name}-"):
            first = SliceKey(service.namespace, start)
            at = bisect.bisect_left(slices, first, key=lambda item: item.key)
            if at < len(slices) and service in _first_parts(slices[at].key):
                return slices[at].key
        return None

    def _follow(self, namespace: str, keys: Iterable[ServiceKey]) -> None:
        names = self._names.setdefault(namespace, [])
        for key in keys:
            at = bisect.bisect_left(names, key)
            has_it = at < len(names) and names[at] == key
            if key not in self._slices:
                del names[at]
            elif not has_it:
                names.insert(at, key)
        if not names:
            del self._names[namespace]

    def _considered(self, namespace: str) -> set[ServiceKey]:
        return set(self._names.get(namespace, ())[:ORPHANS_MAX])

    def _enter(self, key: ServiceKey, *, is_in: bool) -> None:
        _put(self._by_name, key.name, key, is_in=is_in)
        for variant in (*_variants(key), *_stem(key)):
            _put(self._by_variant, variant, key, is_in=is_in)

    def _similar(self, service: ServiceKey) -> ServiceKey | None:
        found = (self._by_variant.get(variant) for variant in _variants(service))
        near = next((min(keys) for keys in found if keys is not None), None)
        if near is None:
            whole = (self._by_name.get(stem.name, ()) for stem in _stem(service))
            near = next((key for keys in whole for key in keys if key in _stem(service)), None)
        return near


def _put(
    index: dict[_At, tuple[ServiceKey, ...]], at: _At, key: ServiceKey, *, is_in: bool
) -> None:
    """Add a key to an index, or remove it. Idempotent."""
    others = tuple([other for other in index.get(at, ()) if other != key])
    if is_in:
        index[at] = (*others, key)
    elif others:
        index[at] = others
    else:
        index.pop(at, None)


def _variants(key: ServiceKey) -> Iterator[ServiceKey]:
    """Yield a name and, unless it is short, the name without each of its letters."""
    yield key
    if len(key.name) > _VARIANT_MIN:
        for at in range(len(key.name)):
            yield ServiceKey(key.namespace, key.name[:at] + key.name[at + 1 :])


def _first_parts(item: SliceKey) -> Iterator[ServiceKey]:
    """Yield the Services whose names begin a slice's name: ``web`` and ``web-1`` for ``web-1``."""
    for start in itertools.accumulate(item.name.split("-"), "{}-{}".format):
        yield ServiceKey(item.namespace, start)


def _stem(key: ServiceKey) -> tuple[ServiceKey, ...]:
    """Return a name without its last part; empty if it has only one part."""
    stem, dash, _ = key.name.rpartition("-")
    return (ServiceKey(key.namespace, stem),) if dash else ()
