"""The outcomes of a soak's requests, by change and kind."""

from __future__ import annotations

import bisect
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Request:
    """One request: start, duration, kind and outcome."""

    start: float
    seconds: float
    kind: str
    outcome: str
    """``ok`` or the error."""
    opened: float
    """The Unix time at which the request's connection was opened."""

    @property
    def end(self) -> float:
        return self.start + self.seconds

    @property
    def has_failed(self) -> bool:
        return self.outcome != "ok"


@dataclass(frozen=True, slots=True)
class Change:
    """A change that was made to both sides, with its start."""

    name: str
    start: float


@dataclass(frozen=True, slots=True)
class Kill:
    """The killing of a worker, in Unix time: from before the signal until its sockets closed."""

    began: float
    ended: float

    def cuts(self, request: Request) -> bool:
        """Return whether a request's connection may have been open in the worker."""
        return request.opened <= self.ended and request.end >= self.began


@dataclass(slots=True)
class Figures:
    """The requests during one kind of change."""

    made: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    """Counts by kind and error: ``short: ConnectionResetError``."""
    cut: int = 0
    """Requests that failed because the worker that relayed their connection was killed."""
    slowest_s: float = 0.0


def read_requests(text: str) -> Iterator[Request]:
    for line in text.splitlines():
        start, seconds, kind, outcome, opened = line.split()
        yield Request(float(start), float(seconds), kind, outcome, float(opened))


def figures_of(
    requests: Iterable[Request], changes: Sequence[Change], kills: Sequence[Kill] = ()
) -> Mapping[str, Figures]:
    """Return the figures by the name of the change during which a request ended.

    Args:
        requests: The requests of one side.
        changes: The changes in chronological order.
        kills: The killed workers of the side.
    """
    found: defaultdict[str, Figures] = defaultdict(Figures)
    starts = [change.start for change in changes]
    for request in requests:
        figures = found[changes[max(0, bisect.bisect(starts, request.end) - 1)].name]
        figures.made += 1
        if not request.has_failed:
            figures.slowest_s = max(figures.slowest_s, request.seconds)
        elif any(kill.cuts(request) for kill in kills):
            figures.cut += 1
        else:
            figures.failed[f"{request.kind}: {request.outcome}"] += 1
    return found


ENDPOINT_DIES = "endpoint dies"
ON_OPEN_CONNECTIONS = frozenset({"keep-alive", "large", "aborted"})


def only_here(ours: Mapping[str, Figures], theirs: Mapping[str, Figures]) -> Iterator[str]:
    """Yield a line for each kind of request that failed during a change on this side only."""
    for name, figures in ours.items():
        there = {kind_of(what) for what in theirs.get(name, Figures()).failed}
        if name == ENDPOINT_DIES:
            # Behind any proxy, open connections end with their endpoint.
            there |= ON_OPEN_CONNECTIONS
        for what, count in figures.failed.items():
            if kind_of(what) not in there:
                yield f"{name}: {count} requests failed that don't with kube-proxy ({what})"


def kind_of(what: str) -> str:
    """Return the kind of request in a key of :attr:`Figures.failed`."""
    return what.partition(":")[0]
