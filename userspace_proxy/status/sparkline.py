"""Draws the last minute of a Service port as the paths of a small SVG picture.

The shaded area is bytes a second, the line is connections a second, each scaled to its own
maximum. A mark at the bottom is a second in which connections were saved, or in which clients
failed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from .history import Minute

WIDTH = 118
HEIGHT = 18
_STEP = 2
_LOW = HEIGHT - 1
# Room for the stroke at the top.
_TOP = 2


@dataclass(frozen=True, slots=True)
class Sparkline:
    """The paths; an empty one draws nothing."""

    area: str
    line: str
    saved: str
    failed: str


def draw(minute: Minute) -> Sparkline:
    """Return the picture of a minute."""
    octets = [a + b for a, b in zip(minute.received_bytes, minute.sent_bytes, strict=True)]
    area, line = _outline(octets), _outline(minute.connections)
    return Sparkline(
        area=f"{area}V{HEIGHT}H0z" if area else "",
        line=line,
        saved=_marks(minute.saved),
        failed=_marks(minute.failed),
    )


def _marks(values: Iterable[float]) -> str:
    return "".join(f"M{n * _STEP} {_LOW - 4}v5" for n, value in enumerate(values) if value > 0)


def _outline(values: Sequence[float]) -> str:
    """Return a curve in relative steps, without points on a flat line between their neighbours."""
    highest = max(values)
    if not highest > 0:
        return ""
    heights = [round(_LOW - value / highest * (_LOW - _TOP)) for value in values]
    last = len(heights) - 1
    kept = [
        n
        for n, height in enumerate(heights)
        if n in (0, last) or not heights[n - 1] == height == heights[n + 1]
    ]
    steps = (f"{_STEP * (b - a)} {heights[b] - heights[a]}" for a, b in pairwise(kept))
    return f"M0 {heights[0]}l" + " ".join(steps).replace(" -", "-")
