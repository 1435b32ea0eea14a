"""The slices of one Service, immutable: a changed copy shares nearly all of its content.

    run: a-1 … a-9 │ run: b-1 … c-3 │ run: c-4 …      changed: one run is another object

Rule 1: a change copies some runs, and two sequences of which one was made from the other are
compared by their runs. So its cost doesn't grow with the number of slices.
Rule 2: what a reader computes of a run is kept with the run, so after a change it is computed of
the changed runs only.
"""

from __future__ import annotations

import bisect
import itertools
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from ..model import EndpointSlice, SliceKey

# Slices with their endpoints and ports. A change of one among 100,000 slices copies some 400, and
# passes some 300 runs.
_RUN_MAX = 512

_T = TypeVar("_T")


class SliceRun:
    """Some slices that follow each other; one that is larger than a run is one by itself."""

    __slots__ = ("_derived", "endpoint_count", "slices")

    def __init__(self, slices: tuple[EndpointSlice, ...]) -> None:
        self.slices = slices
        self.endpoint_count = sum(len(item.endpoints) for item in slices)
        self._derived: dict[Callable[..., Any], Any] | None = None

    def has(self, compute: Callable[..., Any]) -> bool:
        """Return whether what a function returns is remembered."""
        return self._derived is not None and compute in self._derived

    def derive(self, compute: Callable[[Sequence[EndpointSlice]], _T]) -> _T:
        """Return what a function returns for the slices, and remember it; in any thread."""
        derived = self._derived
        if derived is None:
            derived = self._derived = {}
        if compute not in derived:
            derived[compute] = compute(self.slices)
        found: _T = derived[compute]
        return found


class Slices(Sequence[EndpointSlice]):
    """The slices of one Service, in the order of their names."""

    __slots__ = ("runs",)

    def __init__(self, slices: Iterable[EndpointSlice] = ()) -> None:
        self.runs: tuple[SliceRun, ...] = tuple(_split(list(slices)))

    @staticmethod
    def of(slices: Sequence[EndpointSlice]) -> Slices:
        """Return the same slices; they are in order."""
        return slices if isinstance(slices, Slices) else Slices(slices)

    def changed(self, changes: Mapping[SliceKey, EndpointSlice | None]) -> Slices:
        """Return a copy with some slices put, or removed if they are None; itself if it is equal.

        A slice to remove needn't exist, and one that is equal stays the same object.
        """
        runs = list(self.runs)
        for at, some in self._by_run(changes):
            found: dict[SliceKey, EndpointSlice | None] = {}
            if runs:
                found.update((item.key, item) for item in runs[at].slices)
            differing = {
                key: new
                for key, new in some.items()
                # Cost: comparing two slices takes as long as all else.
                if (old := found.get(key)) is not new and (old is None or old != new)
            }
            if not differing:
                continue
            found.update(differing)
            slices = [item for key in sorted(found) if (item := found[key]) is not None]
            # Runs that deletions have left small are joined, so that they stay few.
            end = at + 1
            if end < len(runs) and sum(map(_weight, slices)) < _RUN_MAX // 4:
                end += 1
            slices += itertools.chain.from_iterable(run.slices for run in runs[at + 1 : end])
            runs[at:end] = _split(slices)
        made = Slices()
        made.runs = tuple(runs)
        return self if made.runs == self.runs else made

    def _by_run(
        self, changes: Mapping[SliceKey, EndpointSlice | None]
    ) -> Iterable[tuple[int, Mapping[SliceKey, EndpointSlice | None]]]:
        """Return the changes of each run by its position, the last one first."""
        if len(self.runs) < 2:
            return [(0, changes)]
        by_run: dict[int, dict[SliceKey, EndpointSlice | None]] = defaultdict(dict)
        for key, item in changes.items():
            by_run[max(0, bisect.bisect_right(self.runs, key, key=_first) - 1)][key] = item
        return sorted(by_run.items(), reverse=True)

    def differing(
        self, other: Sequence[EndpointSlice]
    ) -> Iterator[tuple[EndpointSlice | None, EndpointSlice | None]]:
        """Yield the slices that aren't the same object in both, from each; None: it has none."""
        others = Slices.of(other).runs
        before, after = _only(self.runs, others), _only(others, self.runs)
        for key in {**before, **after}:
            old, new = before.get(key), after.get(key)
            if old is not new:
                yield old, new

    def from_key(self, key: SliceKey) -> EndpointSlice | None:
        """Return the first slice of this key or a later one, or None."""
        at = bisect.bisect_right(self.runs, key, key=_first)
        near = itertools.chain.from_iterable(run.slices for run in self.runs[max(0, at - 1) :])
        return next((item for item in near if item.key >= key), None)

    def derive(self, compute: Callable[[Sequence[EndpointSlice]], _T]) -> list[_T]:
        """Return what a function returns for each run; of several runs it is remembered."""
        # Cost: most Services have one, and memory for ten thousand of them.
        if len(self.runs) == 1:
            return [compute(self.runs[0].slices)]
        return [run.derive(compute) for run in self.runs]

    @property
    def endpoint_count(self) -> int:
        """How many endpoints they list, repetitions included."""
        return sum(run.endpoint_count for run in self.runs)

    def __iter__(self) -> Iterator[EndpointSlice]:
        return itertools.chain.from_iterable(run.slices for run in self.runs)

    def __len__(self) -> int:
        return sum(len(run.slices) for run in self.runs)

    def __getitem__(self, at: Any) -> Any:
        return tuple(self)[at]

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Slices):
            return all(old == new for old, new in self.differing(other))
        return isinstance(other, Sequence) and tuple(self) == tuple(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return repr(tuple(self))


def _split(slices: Sequence[EndpointSlice]) -> Iterator[SliceRun]:
    """Yield slices as one run, or as runs that are half full."""
    weights = list(map(_weight, slices)) if len(slices) > 1 else [1] * len(slices)
    if slices and sum(weights) <= _RUN_MAX:
        yield SliceRun(tuple(slices))
        return
    start = weight = 0
    for end, more in enumerate(weights, 1):
        weight += more
        if weight >= _RUN_MAX // 2 or end == len(slices):
            yield SliceRun(tuple(slices[start:end]))
            start, weight = end, 0


def _weight(item: EndpointSlice) -> int:
    return 1 + len(item.endpoints) + len(item.ports)


def _first(run: SliceRun) -> SliceKey:
    return run.slices[0].key


def _only(runs: Iterable[SliceRun], others: Iterable[SliceRun]) -> dict[SliceKey, EndpointSlice]:
    """Return the slices of the runs that aren't among the others."""
    known = set(others)
    return {item.key: item for run in runs if run not in known for item in run.slices}


NO_SLICES = Slices()
