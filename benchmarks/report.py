"""Writes docs/benchmarks.md: the text of ``page.md`` with tables put in, and the picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template

from tests.tools.markdown import RIGHT, table

from .chart import Group, draw_bars
from .goals import Goal, Verdict, judge, why
from .loads import LOADS, DelayedAckLoad, HeldLoad, Load, OpenLoad
from .metrics import METRICS
from .open_loop import QUANTILES
from .samples import Samples
from .ways import WAYS

PAGE = Path(__file__).with_name("page.md")

MAIN = ("close", "echo", "keepalive", "bulk1", "bulk8", "udp1", "udp16")
HELD = tuple(key for key, load in LOADS.items() if isinstance(load, HeldLoad))
OPEN = tuple(key for key, load in LOADS.items() if isinstance(load, OpenLoad))
DELAYED_ACKS = tuple(key for key, load in LOADS.items() if isinstance(load, DelayedAckLoad))
HELD_FIGURES = {
    "exchanges": "Exchanges/s over all connections in turn, 64 at a time",
    "cpu_us": "Proxy CPU, µs for each exchange",
    "p99_ms": "p99, ms",
    "bytes_each": "User memory, bytes for each idle connection",
    "descriptors_each": "Descriptors for each connection",
    "base_mb": "User memory before any connection, MB",
}
BEFORE = frozenset({"base_mb"})
"""Figures that don't differ by load."""
PICTURED = {
    "close": "connections/s, wrk",
    "echo": "connections/s, echo",
    "keepalive": "keep-alive req/s",
    "bulk1": "bulk, 1 stream",
    "bulk8": "bulk, 8 streams",
    "udp16": "UDP exchanges/s",
}
LEGEND = {
    "go": "Go, userspace style",
    "haproxy": "HAProxy",
    "haproxy-newer": "newer HAProxy",
    "haproxy-client": "HAProxy, client's address",
    "nginx": "nginx stream",
    "ours": "us, REDIRECT",
    "ours-2w": "us, 2 workers",
    "ours-local": "us, local",
    "ours-node": "us, node's address",
    "dnat": "kernel DNAT",
    "kube-proxy": "kube-proxy, nftables",
    "ours-kernel": "us, kernel path",
}


def write_report(samples: Samples, path: Path) -> None:
    """Write the page, and its picture into ``images/`` beside it."""
    picture = path.parent / "images" / "benchmarks.svg"
    picture.parent.mkdir(parents=True, exist_ok=True)
    picture.write_text(picture_of(samples))
    path.write_text(page_of(samples))


def page_of(samples: Samples) -> str:
    """Return the page as Markdown."""
    return Template(PAGE.read_text()).substitute(
        machine=table(("what", "here"), samples.machine.items()),
        main="\n\n".join(_load_table(LOADS[key], samples) for key in MAIN if _has(samples, key)),
        latency=_open_tables(samples),
        delayed_acks=_tables_by_figure(
            samples, DELAYED_ACKS, {"p50_ms": "p50, ms", "p99_ms": "p99, ms"}
        ),
        held=_tables_by_figure(samples, HELD, HELD_FIGURES),
        silent=_load_table(LOADS["silent"], samples) if _has(samples, "silent") else "Not run.",
        spread=_spread(samples),
    )


def picture_of(samples: Samples) -> str:
    """Return the picture: rates as ratios to the Go proxy."""
    groups = []
    for key, title in PICTURED.items():
        metric = LOADS[key].rate
        ratios = {way: samples.ratio(key, metric, way, "go") for way in samples.ways(key)}
        values = {way: ratio for way, ratio in ratios.items() if ratio and way in LEGEND}
        if values:
            groups.append(Group(title, values))
    shown = {
        way: label for way, label in LEGEND.items() if any(way in group.values for group in groups)
    }
    return draw_bars("Rates as multiples of the Go proxy's in the same round", shown, groups)


def goals_of(samples: Samples) -> str:
    """Return the goals as Markdown, with what was measured of them and how many are met."""
    verdicts = judge(samples)
    met = sum(verdict.is_met is True for verdict in verdicts)
    parts = [_goals(verdicts), _reasons(verdicts), f"{met} of {len(verdicts)} goals are met"]
    return "\n\n".join(part for part in parts if part)


def _has(samples: Samples, key: str) -> bool:
    return key in samples.loads()


def _load_table(load: Load, samples: Samples) -> str:
    unit = METRICS[load.rate].head
    head = ["", unit, f"to Go's {unit}", *(METRICS[m].head for m in load.metrics[1:])]
    rows = []
    for key in (key for key in WAYS if key in samples.ways(load.key)):
        if note := samples.note(load.key, key):
            rows.append([WAYS[key].label, note, *[""] * (len(head) - 2)])
            continue
        rate, *others = (_figure(samples.median(load.key, key, m), m) for m in load.metrics)
        ratio = samples.ratio(load.key, load.rate, key, "go")
        rows.append([WAYS[key].label, rate, f"{ratio:,.2f}" if ratio else "–", *others])
    title = f"{load.short[:1].upper()}{load.short[1:]}"
    return (
        f"### {title}{': ' * bool(load.details)}{load.details}\n\n{table(head, rows, others=RIGHT)}"
    )


def _open_tables(samples: Samples) -> str:
    return (
        "\n\n".join(_open_table(key, samples) for key in OPEN if _has(samples, key)) or "Not run."
    )


def _open_table(key: str, samples: Samples) -> str:
    """Return the table of one rate; a way without a round that counts has its note instead."""
    quantiles = [METRICS[metric].head for metric in QUANTILES]
    head = ["", *quantiles, *(f"{head} added" for head in quantiles), "late, %", "errors", "rounds"]
    rows, title = [], LOADS[key].short
    for way in (way for way in WAYS if way in samples.ways(key)):
        rates = samples.values(key, way, "scheduled").values()
        if not rates:
            rows.append([WAYS[way].label, samples.note(key, way), *[""] * (len(head) - 2)])
            continue
        title = f"{LOADS[key].short}: {max(rates):,.0f} requests/s"
        figures = [(samples.median(key, way, metric), metric) for metric in QUANTILES]
        figures += [(samples.added(key, metric, way, "direct"), metric) for metric in QUANTILES]
        figures += [(samples.median(key, way, m), m) for m in ("late_percent", "errors")]
        counted = f"{len(rates)} of {samples.rounds(key)}"
        rows.append([WAYS[way].label, *(_figure(*figure) for figure in figures), counted])
    return f"### {title[0].upper()}{title[1:]}\n\n{table(head, rows, others=RIGHT)}"


def _tables_by_figure(samples: Samples, loads: Sequence[str], figures: Mapping[str, str]) -> str:
    """Return a table for each figure, in which each load has a column.

    Args:
        figures: The title of each metric.
    """
    keys = [key for key in loads if _has(samples, key)]
    parts = []
    for metric, title in figures.items():
        used = [key for key in keys if any(samples.values(key, way, metric) for way in WAYS)]
        if metric in BEFORE:
            used = used[:1]
        if not used:
            continue
        rows = [
            [WAYS[way].label, *(_cell(samples, key, way, metric) for key in used)]
            for way in WAYS
            if way in samples.ways(used[0])
        ]
        head = ["", *(LOADS[key].short for key in used)]
        parts.append(f"### {title}\n\n{table(head, rows, others=RIGHT)}")
    return "\n\n".join(parts) or "Not run."


def _cell(samples: Samples, load: str, way: str, metric: str) -> str:
    return samples.note(load, way) or _figure(samples.median(load, way, metric), metric)


def _figure(value: float | None, metric: str) -> str:
    return "–" if value is None else f"{value:,.{METRICS[metric].digits}f}"


def _goals(verdicts: Sequence[Verdict]) -> str:
    words = {True: "met", False: "**not met**", None: "not measured"}
    rows = []
    for verdict in verdicts:
        goal = verdict.goal
        sign = "≤" if goal.at_most else "≥"
        digits = 0 if goal.metric == "bytes_each" else 2
        rows.append(
            (
                goal.what,
                LOADS[goal.load].short,
                _whose(goal),
                f"{sign} {goal.bound:,g}",
                f"{verdict.value:,.{digits}f}",
                words[verdict.is_met],
            )
        )
    return table(("what", "load", "of", "goal", "measured", ""), rows)


def _reasons(verdicts: Sequence[Verdict]) -> str:
    """Return why goals aren't met; empty when all are."""
    missed: dict[str, dict[str, None]] = {}
    for verdict in verdicts:
        if verdict.is_met is False:
            goal = verdict.goal
            loads = missed.setdefault(why(goal), {})
            loads[f"{LOADS[goal.load].short} ({_whose(goal)})"] = None
    lines = [f"- **{'; '.join(loads)}**: {reason}." for reason, loads in missed.items()]
    return "\n".join(["What is not met, and why:", "", *lines]) if lines else ""


def _whose(goal: Goal) -> str:
    if goal.added:
        return f"{LEGEND[goal.way]}, over {goal.to}"
    return f"{LEGEND[goal.way]}, to {LEGEND[goal.to]}" if goal.to else LEGEND[goal.way]


def _spread(samples: Samples) -> str:
    """Say how far rounds were apart."""
    keys = [key for key in MAIN if _has(samples, key)]
    spreads = sorted(
        spread
        for key in keys
        for way in samples.ways(key)
        if (spread := samples.spread(key, way, LOADS[key].rate)) is not None
    )
    if not spreads:
        return "unknown"
    middle, most = spreads[len(spreads) // 2], spreads[-1]
    return f"{middle * 100:.0f} % (half of the cells) and up to {most * 100:.0f} % of its median"
