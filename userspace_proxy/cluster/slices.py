"""Stores the slices of one Service immutably; a changed copy shares nearly all content.

    run: a-1 … a-9 │ run: b-1 … c-3 │ run: c-4 …      changed: one run is replaced

Rule 1: a change copies a few runs, and a sequence is compared with a changed copy run by run, so
the cost doesn't grow with the number of slices.
Rule 2: values computed from a run are cached in it, so after a change they are computed only for
the changed runs.
"""

from __future__ import annotations

import bisect
import itertools
from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from ..model import EndpointSlice, SliceKey

# The maximum size of a run, counting slices, endpoints and ports. Changing one of 100,000 slices
# copies about 400 slices, and visits about 300 runs.
_RUN_MAX = 512

_T = TypeVar("_T")
_NOTHING: Mapping[Callable[..., Any], Any] = {}


class SliceRun:
    """Consecutive slices; only a large last slice makes a run exceed the maximum size."""

    __slots__ = ("derived", "slices", "weight")

    def __init__(self, slices: Sequence[EndpointSlice], weight: int) -> None:
        self.slices = slices
        self.weight = weight
        """The number of slices, endpoints and ports."""
        self.derived: Mapping[Callable[..., Any], Any] = _NOTHING
        """Cached results of functions that were applied to the slices."""

    def derive(self, compute: Callable[[Sequence[EndpointSlice]], _T]) -> _T:
        """Return the result of a function of the slices, and cache it; thread-safe."""
        derived = self.derived
        if compute not in derived:
            self.derived = derived = {**derived, compute: compute(self.slices)}
        found: _T = derived[compute]
        return found


class Slices(tuple[EndpointSlice, ...]):
    """The slices of one Service, in the order of their names."""

    # Cost: most Services have one run, which isn't stored: creating it again is cheap.
    _runs: Sequence[SliceRun] = ()

    @classmethod
    def of(cls, slices: Iterable[EndpointSlice]) -> Slices:
        """Return slices as this type; they must already be in order."""
        return slices if isinstance(slices, Slices) else cls._joined(_split(tuple(slices)))

    @classmethod
    def _joined(cls, runs: Sequence[SliceRun]) -> Slices:
        made = cls(itertools.chain.from_iterable(run.slices for run in runs))
        if len(runs) > 1:
            made._runs = runs
        return made

    @property
    def runs(self) -> Sequence[SliceRun]:
        """The runs; a single run isn't stored, so each access creates it again."""
        return self._runs or _split(self)

    def changed(self, changes: Mapping[SliceKey, EndpointSlice | None]) -> Slices:
        """Return a copy with slices replaced, or removed if None; self if nothing changes.

        Slices to remove needn't exist, and an equal slice stays the same object.
        """
        runs = list(self.runs)
        by_run: dict[int, list[SliceKey]] = defaultdict(list)
        for key in changes:
            at = bisect.bisect_right(runs, key, key=lambda run: run.slices[0].key)
            by_run[max(0, at - 1)].append(key)
        is_equal = True
        for at in sorted(by_run, reverse=True):
            found: dict[SliceKey, EndpointSlice | None] = {**_by_key(runs[at : at + 1])}
            differing = {
                key: new
                for key in by_run[at]
                # Cost: compare identity first; comparing contents takes as long as the rest.
                if (new := changes[key]) is not (old := found.get(key)) and new != old
            }
            if not differing:
                continue
            is_equal = False
            found.update(differing)
            slices = [item for key in sorted(found) if (item := found[key]) is not None]
            end = at + 1
            # Join a run that deletions have shrunk with the next run, to limit the number of runs.
            if sum(map(_weight, slices)) < _RUN_MAX // 4:
                slices += _by_key(runs[end : end + 1]).values()
                end += 1
            runs[at:end] = _split(slices)
        return self if is_equal else self._joined(runs)

    def differing(
        self, other: Iterable[EndpointSlice]
    ) -> Iterator[tuple[EndpointSlice | None, EndpointSlice | None]]:
        """Yield the pairs of slices that aren't the same object; None for a missing slice."""
        others = Slices.of(other).runs
        shared = {*self.runs}.intersection(others)
        before, after = (_by_key(runs, shared) for runs in (self.runs, others))
        for key in {**before, **after}:
            old, new = before.get(key), after.get(key)
            if old is not new:
                yield old, new

    def derive(self, compute: Callable[[Sequence[EndpointSlice]], _T]) -> list[_T]:
        """Return a function's result for each run; cached if there are several runs."""
        return [run.derive(compute) for run in self.runs]

    @property
    def endpoint_count(self) -> int:
        """The number of listed endpoints, including duplicates."""
        return sum(self.derive(_count_endpoints))


def _split(slices: Sequence[EndpointSlice]) -> Sequence[SliceRun]:
    """Divide slices into one run, or into half-full runs."""
    weights = list(map(_weight, slices))
    most = _RUN_MAX if sum(weights) <= _RUN_MAX else _RUN_MAX // 2
    runs, start, weight = [], 0, 0
    for end, more in enumerate(weights, 1):
        weight += more
        if weight >= most or end == len(slices):
            runs.append(SliceRun(slices[start:end], weight))
            start, weight = end, 0
    return runs


def _weight(item: EndpointSlice) -> int:
    return 1 + len(item.endpoints) + len(item.ports)


def _count_endpoints(slices: Iterable[EndpointSlice]) -> int:
    return sum(len(item.endpoints) for item in slices)


def _by_key(
    runs: Iterable[SliceRun], without: Container[SliceRun] = ()
) -> dict[SliceKey, EndpointSlice]:
    return {item.key: item for run in runs if run not in without for item in run.slices}


NO_SLICES = Slices()
