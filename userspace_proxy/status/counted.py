"""How long clients waited: until an endpoint answered, or until one could take them at all."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Times:
    """How long clients waited for something, since the start."""

    bounds: tuple[float, ...] = ()
    """Seconds, ascending."""
    counts: tuple[int, ...] = ()
    """How many waited at most so long, and longer than the bound before; the last number is of
    those beyond all bounds."""
    seconds: float = 0.0
    """Sum of their waits."""


NO_TIMES = Times()


@dataclass(frozen=True, slots=True)
class Waits:
    """The clients that waited until an endpoint could take them."""

    waiting: int = 0
    """Connections, and UDP flows, that wait now."""
    longest_s: float = 0.0
    """How long the first of them has waited; 0 if none waits."""
    total: int = 0
    """Those that began to wait since the start."""
    timeouts: int = 0
    """Of these, those that ended because their time was up."""
    overflows: int = 0
    """Of these, those that ended to make room for later ones."""
    left: int = 0
    """Of these, those whose clients left."""
    problem: str = ""
    """Why the workload that clients wait for wasn't scaled; empty if it was, or needn't be."""


NO_WAITS = Waits()
