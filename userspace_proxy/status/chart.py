"""What was carried in the last ten minutes, with the times and the figures of each step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ..facts.units import bytes_in_words, rate_in_words
from ..model import PortKey
from .history import LONG_STEP_S, STEPS, Figures, History
from .sparkline import STEP, Sparkline, draw


@dataclass(frozen=True, slots=True)
class Slot:
    """Ten seconds."""

    x: int
    """Where it begins in the picture."""
    at: float
    """Unix time at which it begins."""
    words: str


@dataclass(frozen=True, slots=True)
class Chart:
    """Ten minutes."""

    picture: Sparkline
    times: tuple[float, ...]
    """Unix times at the left, in the middle and at the right."""
    steps: tuple[Slot, ...]
    """Those that were measured, the oldest first; empty unless they are wanted."""


def make_chart(
    history: History, now: float, key: PortKey | None = None, *, has_steps: bool = False
) -> Chart | None:
    """Return the chart of a Service port, or of all together; None if nothing was carried.

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
        f"{rate_in_words(rates.connections)} conn/s",
        f"{bytes_in_words(rates.received_bytes)}/s in",
        f"{bytes_in_words(rates.sent_bytes)}/s out",
    ]
    counts = {"saved": rates.saved, "failed": rates.failed}
    parts += [f"{round(rate * LONG_STEP_S):,} {word}" for word, rate in counts.items() if rate > 0]
    return ", ".join(parts)
