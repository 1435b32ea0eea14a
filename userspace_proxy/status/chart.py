"""Draws the traffic of a Service port in the last minute or ten minutes as paths of an SVG image.

The shaded area shows bytes per second, the line connections per second, each scaled to its own
maximum. A mark at the bottom shows a step with saved connections or failed clients. Time that
wasn't measured is shown as a gap. The ten-minute chart can include each step's time and figures.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

from ..facts.units import format_bytes, format_rate
from ..model import PortKey
from .history import LONG_STEP_S, STEPS, Curves, Figures, History

WIDTH = 118
HEIGHT = 18
STEP = 2
_LOW = HEIGHT - 1
# Room for the stroke at the top of the image.
_TOP = 2


@dataclass(frozen=True, slots=True)
class Sparkline:
    """The paths of the image; an empty path draws nothing."""

    area: str
    line: str
    saved: str
    failed: str


def draw(series: Curves) -> Sparkline:
    """Return the paths that show a series."""
    octets = [a + b for a, b in zip(series.received_bytes, series.sent_bytes, strict=True)]
    return Sparkline(
        area="".join(f"{curve}V{HEIGHT}H{start}z" for start, curve in _curves(octets)),
        line="".join(curve for _, curve in _curves(series.connections)),
        saved=_marks(series.saved),
        failed=_marks(series.failed),
    )


def _marks(values: Iterable[float]) -> str:
    return "".join(f"M{n * STEP} {_LOW - 4}v5" for n, value in enumerate(values) if value > 0)


def _curves(values: Sequence[float]) -> Iterator[tuple[int, str]]:
    """Yield each curve between two gaps, with its x position; none if no value is above 0."""
    highest = max((value for value in values if value > 0), default=0.0)
    if not highest > 0:
        return
    for is_measured, run in groupby(enumerate(values), key=lambda item: item[1] >= 0):
        if is_measured:
            steps = list(run)
            start = steps[0][0] * STEP
            heights = [round(_LOW - value / highest * (_LOW - _TOP)) for _, value in steps]
            yield start, f"M{start} {heights[0]}{_outline(heights)}"


def _outline(heights: Sequence[int]) -> str:
    """Return a path of relative steps, without the inner points of flat lines."""
    last = len(heights) - 1
    if not last:
        return f"h{STEP // 2}"
    kept = [
        n
        for n, height in enumerate(heights)
        if n in (0, last) or not heights[n - 1] == height == heights[n + 1]
    ]
    steps = (f"{STEP * (b - a)} {heights[b] - heights[a]}" for a, b in pairwise(kept))
    return "l" + " ".join(steps).replace(" -", "-")


@dataclass(frozen=True, slots=True)
class Slot:
    """One ten-second step of a chart."""

    x: int
    """The horizontal position at which the step begins."""
    at: float
    """Unix time at which the step begins."""
    words: str


@dataclass(frozen=True, slots=True)
class Chart:
    """The chart of the last ten minutes."""

    picture: Sparkline
    times: tuple[float, ...]
    """Unix times at the left, in the middle and at the right."""
    steps: tuple[Slot, ...]
    """The measured steps, the oldest first; empty unless requested."""


def make_chart(
    history: History, now: float, key: PortKey | None = None, *, has_steps: bool = False
) -> Chart | None:
    """Return the chart of a Service port, or of all ports; None if there was no traffic.

    Args:
        now: Unix time of the last sample.
    """
    if (series := history.ten_minutes(key)) is None:
        return None
    began = now - history.long_age_s - STEPS * LONG_STEP_S
    steps = _steps(zip(*series, strict=True), began) if has_steps else ()
    half = STEPS * LONG_STEP_S / 2
    return Chart(draw(series), (began, began + half, began + 2 * half), tuple(steps))


def _steps(rates: Iterator[tuple[float, ...]], began: float) -> Iterator[Slot]:
    for n, values in enumerate(rates):
        one = Figures(*values)
        if one.connections >= 0:
            yield Slot(n * STEP, began + n * LONG_STEP_S, _words(one))


def _words(rates: Figures) -> str:
    parts = [
        f"{format_rate(rates.connections)} conn/s",
        f"{format_bytes(rates.received_bytes)}/s in",
        f"{format_bytes(rates.sent_bytes)}/s out",
    ]
    counts = {"saved": rates.saved, "failed": rates.failed}
    parts += [f"{round(rate * LONG_STEP_S):,} {word}" for word, rate in counts.items() if rate > 0]
    return ", ".join(parts)
