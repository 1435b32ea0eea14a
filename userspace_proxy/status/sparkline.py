"""Draws the last minute of a Service port as the path of a small SVG picture.

The shaded area is bytes a second, the line is connections a second, each scaled to its own
maximum; a mark at the bottom is a second in which dials failed or clients were refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

WIDTH = 118
HEIGHT = 18
_STEP = 2
_LOW = HEIGHT - 1
# Room for the stroke at the top.
_TOP = 2


@dataclass(frozen=True, slots=True)
class Sparkline:
    """The three paths; an empty path draws nothing."""

    area: str
    line: str
    marks: str


def draw(
    connections: Sequence[float], octets: Sequence[float], failures: Sequence[float]
) -> Sparkline:
    """Return the picture of equally many values of each figure, the oldest first."""
    area = _outline(octets)
    end = (len(octets) - 1) * _STEP
    return Sparkline(
        area=f"M0 {HEIGHT}L{area}L{end} {HEIGHT}z" if area else "",
        line=f"M{line}" if (line := _outline(connections)) else "",
        marks="".join(
            f"M{n * _STEP} {_LOW - 4}v5" for n, value in enumerate(failures) if value > 0
        ),
    )


def _outline(values: Sequence[float]) -> str:
    """Return the points of a curve, without those on a straight line between their neighbours."""
    highest = max(values)
    if not highest > 0:
        return ""
    heights = [round(_LOW - value / highest * (_LOW - _TOP)) for value in values]
    last = len(heights) - 1
    return "L".join(
        f"{n * _STEP} {height}"
        for n, height in enumerate(heights)
        if n in (0, last) or not heights[n - 1] == height == heights[n + 1]
    )
