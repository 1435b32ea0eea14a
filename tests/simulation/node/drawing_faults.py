"""Draws faults of a node during other events: each kind if the plan has its feature."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import Random

from ..network import REFUSES, SILENT, UNREACHABLE
from ..plan import Event
from .drifting import DRIFTS
from .kernel_of_node import FAILURES
from .objects import node_object
from .plan import (
    API,
    BREAK,
    CLOCK,
    CRASH,
    DISK,
    DRIFT,
    END,
    INTERCEPT,
    KERNEL,
    KILL,
    NO_START,
    OTHER_PODS,
    OWN_PODS,
    PUT,
    REFUSE,
    SLOW,
    STOP,
    ZONE,
)

ZONES = (ZONE, "zone-2")
_HABITS = (
    ("has_nulls", True),
    ("repeats", True),
    ("expires_by_status", True),
    ("waits_for_future", False),
    ("bookmark_s", 30.0),
)
"""Unusual behaviours of some servers."""


class Faults:
    """The faults of one plan.

    Args:
        features: The plan's features.
        at: Returns the time of an event.
    """

    def __init__(self, rng: Random, features: frozenset[str], at: Callable[[], float]) -> None:
        self._rng = rng
        self._features = features
        self._at = at

    def events(self) -> Iterator[Event]:
        """Yield all faults, in any order."""
        yield from self._of_processes()
        yield from self._of_kernel()
        rng = self._rng
        for _ in self._times("API faults", 4):
            yield Event(self._at(), API, self._api_fault())
        yield from self._outages()
        for _ in self._times("broken endpoints", 3):
            how, seconds = rng.choice([REFUSES, UNREACHABLE, SILENT]), rng.choice([0.3, 2.0, 5.0])
            yield Event(self._at(), BREAK, (rng.choice(OWN_PODS + OTHER_PODS), how, seconds))
        for _ in self._times("disk faults", 3):
            yield Event(self._at(), DISK, (rng.choice(["torn", "full", "well"]),))
        for _ in self._times("zones of the node", 2):
            yield Event(self._at(), PUT, (node_object(rng.choice((*ZONES, ""))),))
        for _ in self._times("clock jumps", 3):
            yield Event(self._at(), CLOCK, (rng.choice([-86400.0, -1.0, 1.0, 3600.0, 1e8]),))

    def _of_processes(self) -> Iterator[Event]:
        rng = self._rng
        for _ in self._times("kills", 3):
            yield Event(self._at(), KILL, (rng.randint(0, 3),))
            if rng.random() < 0.2:
                yield Event(self._at(), NO_START, (rng.choice([1, 2]),))
        for _ in self._times("stops", 3):
            seconds = rng.choice([0.01, 0.1, 0.5, 2.0])
            yield Event(self._at(), STOP, (rng.random() < 0.5, rng.randint(0, 3), seconds))
        for _ in self._times("crashes", 2):
            yield Event(self._at(), CRASH)
        for _ in self._times("orderly ends", 1):
            yield Event(self._at(), END)

    def _of_kernel(self) -> Iterator[Event]:
        rng = self._rng
        for _ in self._times("refused rules", 2):
            yield Event(self._at(), REFUSE, (rng.choice([1, 1, 3]),))
        for _ in self._times("kernel faults", 3):
            yield Event(self._at(), KERNEL, (rng.choice(FAILURES), rng.randrange(1000)))
        for _ in self._times("drift", 3):
            yield Event(self._at(), DRIFT, (rng.choice(DRIFTS), rng.randrange(1000)))
        if "drift" in self._features and rng.random() < 0.4:
            seconds = rng.choice([0.5, 4.0])
            yield Event(self._at(), INTERCEPT, (rng.randrange(3), seconds))
        for _ in self._times("slow rules", 2):
            at = self._at()
            yield Event(at, SLOW, (rng.choice([0.05, 0.3]),))
            yield Event(at + 1.0, SLOW, (0.0,))

    def _outages(self) -> Iterator[Event]:
        """Yield failures of the API server during the agent's startup and before its exit."""
        rng = self._rng
        if "late Node" in self._features:
            # The failure begins at startup, while objects are listed.
            yield Event(0.0, API, ("refuse", 500, rng.choice([0.5, 2.0]), "nodes"))
        if "orderly ends" in self._features and rng.random() < 0.5:
            # The agent exits after it has detected the failure.
            at = self._at()
            yield Event(at, API, rng.choice([("restart", 4.0), ("refuse", 503, 4.0)]))
            yield Event(at + 3.0, END)

    def _api_fault(self) -> tuple[object, ...]:
        rng = self._rng
        seconds = rng.choice([0.05, 0.5, 3.0])
        resource = rng.choice(["services", "endpointslices", "nodes"])
        return rng.choice(
            [
                ("cut",),
                ("end watches",),
                ("forget history",),
                ("silent", seconds),
                ("refuse", rng.choice([429, 500, 503]), seconds),
                ("refuse", 403, seconds),
                ("refuse", 429, seconds, resource, rng.choice([1, 3])),
                ("cut next", rng.choice([1, 60, 700])),
                ("cut next", rng.choice([0, 300, 900]), resource, True, rng.choice([0, 1])),
                ("cut next", 0, resource, False, rng.choice([0, 1, 2]), True),
                ("restart", seconds),
                ("restart", seconds, rng.choice([1, 5])),
                ("restore", rng.choice([1, 3, 10])),
                ("wrong line", resource, rng.randrange(10)),
                ("wrong list", resource, rng.randrange(10)),
                ("habit", *rng.choice(_HABITS)),
                ("pages", rng.choice([1, 2])),
                ("slow", rng.choice([0.02, 0.3])),
                ("pieces", rng.choice([7, 100])),
            ]
        )

    def _times(self, feature: str, most: int) -> range:
        return range(self._rng.randint(1, most) if feature in self._features else 0)
