"""Renders the table at the end of a soak and docs/soak.md, and finds exceeded limits."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template

from tests.tools.markdown import marked, table

from .holdings import MIB, Holdings
from .requests import Figures, only_here

PAGE = Path(__file__).with_name("page.md")
SLOPE_MAX = 0.01
"""The maximum growth of memory in the last half, as a fraction."""
SAMPLES_MIN = 10
"""The minimum number of samples; with fewer, a single memory page would count as growth."""


@dataclass(frozen=True, slots=True)
class SideReport:
    """The results of one side."""

    title: str
    figures: Mapping[str, Figures]
    """The figures by the change's name."""
    before: Holdings
    after: Holdings
    memory: Sequence[int]
    """The memory in bytes, after each round of changes."""

    @property
    def slope(self) -> float | None:
        """The growth of memory over the last half, as a share; None for a short soak.

        This is the median of the growth between any two rounds (Theil and Sen), because processes
        may start with a few MiB more or less, which isn't growth.
        """
        half = self.memory[len(self.memory) // 2 :]
        if len(half) < SAMPLES_MIN // 2:
            return None
        pairs = itertools.combinations(enumerate(half), 2)
        growth = statistics.median((late - early) / (j - i) for (i, early), (j, late) in pairs)
        return growth * (len(half) - 1) / statistics.fmean(half)


def problems(reports: Sequence[SideReport]) -> list[str]:
    """Return the limits that the first side exceeded, one line each; the second is kube-proxy."""
    ours, theirs = reports
    return [
        *only_here(ours.figures, theirs.figures),
        *ours.after.leaks(ours.before),
        *_growth(ours),
    ]


def page_of(reports: Sequence[SideReport], machine: Mapping[str, str], rate: float) -> str:
    """Return the page as Markdown.

    Args:
        rate: New connections per second on each side.
    """
    broken = problems(reports)
    return Template(PAGE.read_text(encoding="utf-8")).substitute(
        machine=marked(table(("what", "here"), machine.items()), "soak"),
        rate=f"{rate:g}",
        rounds=len(reports[0].memory),
        slope=f"{100 * SLOPE_MAX:g} %",
        verdict=f"It failed: {'; '.join(broken)}." if broken else "It passed.",
        table=marked(f"```\n{render(reports).rstrip()}\n```", "soak"),
    )


def _growth(report: SideReport) -> Iterator[str]:
    slope = report.slope
    if slope is not None and slope > SLOPE_MAX:
        yield f"memory grew by {slope:.1%} over the last half, at most {SLOPE_MAX:.0%}"


def render(reports: Sequence[SideReport]) -> str:
    lines = []
    for report in reports:
        lines += [report.title, f"  {'during':22}{'requests':>10}{'failed':>8}{'cut':>6}  slowest"]
        for name, figures in report.figures.items():
            failed = ", ".join(f"{count} {what}" for what, count in figures.failed.items())
            lines.append(
                f"  {name:22}{figures.made:10,}{figures.failed.total():8}{figures.cut:6}"
                f"{figures.slowest_s:8.2f} s  {failed}".rstrip()
            )
        lines += [f"  {line}" for line in _holdings(report)]
        lines.append("")
    return "\n".join(lines)


def _holdings(report: SideReport) -> Iterator[str]:
    for name, before, after in report.before.compared(report.after):
        yield f"{name:22}{before:>10} → {after}"
    slope = report.slope
    shown = "not judged: too few rounds" if slope is None else f"{slope:+.2%}"
    yield f"{'memory, last half':22}{shown:>10}"
    yield f"{'memory, MiB':22}{' '.join(f'{size / MIB:.0f}' for size in report.memory)}"
