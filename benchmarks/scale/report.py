"""Writes docs/benchmarks-scale.md: the text of ``page.md`` with tables inserted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from string import Template

from tests.tools.markdown import RIGHT, marked, table

from ..goals import Verdict, judge
from ..metrics import Metric
from ..samples import Samples
from .goals import GOALS
from .ways import WAYS

PAGE = Path(__file__).with_name("page.md")

METRICS = {
    "start_s": Metric("start to all served, s", 1),
    "start_cpu_s": Metric("CPU until then, s", 1),
    "unanswered": Metric("Services unanswered", 0),
    "memory_mb": Metric("memory, MB", 0),
    "control_mb": Metric("of the control process, MB", 0),
    "memory_after_mb": Metric("memory after it, MB", 0),
    "idle_cpu": Metric("CPU at rest, cores", 3),
    "effect_ms": Metric("event to effect, ms", 1),
    "whole_ms": Metric("write to effect, ms", 1),
    "api_ms": Metric("write to event, ms", 1),
    "rate": Metric("changes/s", 1),
    "failed": Metric("writes that failed", 0),
    "write_ms": Metric("a write, ms", 1),
    "behind_ms": Metric("the next change's effect, ms", 0),
    "control_cpu": Metric("CPU of the control process, cores", 2),
    "all_cpu": Metric("CPU of all, cores", 2),
    "asked_p99_ms": Metric("client's p99, ms", 1),
    "asked_max_ms": Metric("client's longest, ms", 1),
    "turns": Metric("turns of the worker", 0),
    "late_turns": Metric("turns over 20 ms", 0),
    "turn_at_most_ms": Metric("longest turn, at most ms", 0),
    "rounds": Metric("sync rounds", 0),
    "round_ms": Metric("a round, ms", 1),
    "rules": Metric("rules walked, at most", 0),
    "rules_median": Metric("rules walked, median", 0),
    "rules_few": Metric("with 10 Services", 0),
    "rules_ratio": Metric("ratio", 2),
    "cpu_us": Metric("CPU, µs each", 1),
    "cpu_few_us": Metric("with 10 Services, µs", 1),
    "cpu_ratio": Metric("ratio", 2),
    "floor_s": Metric("s", 2),
}

_START = ("start_s", "start_cpu_s", "unanswered")
_MEMORY = ("memory_mb", "control_mb", "idle_cpu")
_CHURN = (
    *("rate", "behind_ms", "turns", "late_turns", "turn_at_most_ms", "asked_p99_ms"),
    *("asked_max_ms", "rounds", "round_ms", "control_cpu", "all_cpu", "memory_after_mb"),
)
_CONNECTION = (
    *("rules", "rules_median", "rules_few", "rules_ratio"),
    *("cpu_us", "cpu_few_us", "cpu_ratio"),
)
_TITLES = {key: metric.head for key, metric in METRICS.items()}


def page_of(samples: Samples) -> str:
    """Return the page as Markdown."""
    parts = {
        "machine": table(("what", "here"), samples.machine.items()),
        "start": _row_table(samples, "start", _START),
        "memory": _row_table(samples, "memory", _MEMORY),
        "effects": _effects(samples),
        "churn": _turned(samples, "churn", _CHURN),
        "connection": _row_table(samples, "connection", _CONNECTION),
        "floors": _row_table(samples, "floor", ("floor_s",)),
    }
    return Template(PAGE.read_text()).substitute(
        {name: marked(part, "bench-scale") for name, part in parts.items()}
    )


def verdicts_of(samples: Samples) -> list[Verdict]:
    """Return a verdict on each measured goal; it has no value if the measurement failed."""
    measured = {verdict.goal: verdict for verdict in judge(samples, GOALS)}
    tried = (goal for goal in GOALS if goal.way in samples.ways(goal.load))
    return [measured.get(goal, Verdict(goal, None)) for goal in tried]


def goals(verdicts: Sequence[Verdict]) -> str:
    """Return a table of the goals, for developers."""
    words = {True: "met", False: "**not met**", None: "**failed**"}
    rows = [
        (
            verdict.goal.what,
            WAYS[verdict.goal.way].label,
            f"≤ {verdict.goal.bound:,g}",
            _figure(verdict.value, verdict.goal.metric),
            words[verdict.is_met],
        )
        for verdict in verdicts
    ]
    return table(("what", "of", "goal", "measured", ""), rows)


def _row_table(samples: Samples, row: str, metrics: Sequence[str]) -> str:
    rows = []
    for way in _ways(samples, row):
        cells = [_figure(samples.median(row, way, metric), metric) for metric in metrics]
        rows.append([WAYS[way].label, *cells, samples.note(row, way)])
    return _without_empty(["", *(_TITLES[m] for m in metrics), "findings"], rows)


def _turned(samples: Samples, row: str, metrics: Sequence[str]) -> str:
    """Return a table with one column per agent, because the figures don't fit in one line."""
    ways = _ways(samples, row)
    rows = [
        [_TITLES[m], *(_figure(samples.median(row, way, m), m) for way in ways)] for m in metrics
    ]
    if any(samples.note(row, way) for way in ways):
        rows.append(["findings", *(samples.note(row, way) for way in ways)])
    return (
        table(["", *(WAYS[way].label for way in ways)], rows, others=RIGHT) if ways else "Not run."
    )


_EFFECTS = {
    "endpoint": "endpoint change",
    "none_some": "none ↔ some endpoints",
    "new_service": "a new Service",
    "edit": "a manifest's edit",
}


def _effects(samples: Samples) -> str:
    rows = []
    for row, title in _EFFECTS.items():
        for way in _ways(samples, row):
            effects = sorted(samples.values(row, way, "effect_ms").values())
            high = effects[len(effects) * 9 // 10] if effects else None
            cells = (
                *(samples.median(row, way, "effect_ms"), high, effects[-1] if effects else None),
                *(samples.median(row, way, "api_ms"), samples.median(row, way, "whole_ms")),
            )
            figures = [_figure(cell, "effect_ms") for cell in cells]
            rows.append(
                [title, WAYS[way].label, str(len(effects)), *figures, samples.note(row, way)]
            )
    head = (
        *("", "", "changes", "event to effect, median ms", "p90", "longest"),
        *("write to event, median ms", "write to effect, median ms", "findings"),
    )
    return _without_empty(list(head), rows)


def _without_empty(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table, without its last column if that is empty."""
    if not rows:
        return "Not run."
    if not any(row[-1] for row in rows):
        head, rows = head[:-1], [row[:-1] for row in rows]
    return table(head, rows, others=RIGHT)


def _ways(samples: Samples, row: str) -> list[str]:
    return [way for way in WAYS if way in samples.ways(row)]


def _figure(value: float | None, metric: str) -> str:
    return "–" if value is None else f"{value:,.{METRICS[metric].digits}f}"
