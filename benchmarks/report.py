"""Writes docs/benchmarks.md: the text of ``page.md`` with tables inserted, and its pictures.

Each question has one picture and one table. For developers, :func:`details_of` also returns results
that the page omits, such as the latencies of closed loops.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from string import Template

from tests.tools.markdown import RIGHT, marked, table

from .chart import Group, draw_bars
from .goals import Goal, Verdict, judge, why
from .loads import IN_KERNEL, LOADS, DelayedAckLoad, HeldLoad, Load, OpenLoad
from .metrics import METRICS
from .open_loop import QUANTILES
from .samples import Samples
from .ways import WAYS

PAGE = Path(__file__).with_name("page.md")

MAIN = ("close", "echo", "keepalive", "bulk1", "bulk8", "udp1", "udp16")
ADDRESSED = ("close", "echo", "keepalive")
"""The loads that show the cost of preserving the client's address."""
HELD = tuple(key for key, load in LOADS.items() if isinstance(load, HeldLoad))
OPEN = tuple(key for key, load in LOADS.items() if isinstance(load, OpenLoad))
DELAYED_ACKS = tuple(key for key, load in LOADS.items() if isinstance(load, DelayedAckLoad))
HEADS = {
    "close": "short connections/s, HTTP",
    "echo": "short connections/s, echo",
    "keepalive": "keep-alive requests/s",
    "bulk1": "bulk Gbit/s, 1 stream",
    "bulk8": "bulk Gbit/s, 8 streams",
    "udp1": "UDP exchanges/s, 1 socket",
    "udp16": "UDP exchanges/s, 16 sockets",
}
ACKS_FIGURES = {"p50_ms": "p50, ms", "p99_ms": "p99, ms"}
HELD_FIGURES = {
    "exchanges": "Exchanges/s over all connections in turn, 64 at a time",
    "cpu_us": "Proxy CPU, µs for each exchange",
    "p99_ms": "p99, ms",
    "bytes_each": "User memory, bytes for each idle connection",
    "descriptors_each": "Descriptors for each connection",
    "base_mb": "User memory before any connection, MB",
}
BEFORE = frozenset({"base_mb"})
"""Metrics that the load doesn't affect."""
LEGEND = {
    "direct": "direct",
    "dnat": "kernel DNAT",
    "kube-proxy": "kube-proxy, nftables",
    "ours-kernel": "us, kernel path",
    "ours-sockets": "us, kernel path, sockets",
    "ours": "us, REDIRECT",
    "ours-local": "us, local",
    "ours-node": "us, node's address",
    "haproxy": "HAProxy",
    "haproxy-newer": "newer HAProxy",
    "haproxy-client": "HAProxy, client's address",
    "nginx": "nginx stream",
    "go": "Go, userspace style",
}

_Value = Callable[[str, str], float | None]
"""Returns the figure of a load and a way; None if there is none."""


def base_of(load: str) -> str:
    """Return the way by whose figures a load's figures are divided: Go for UDP, else HAProxy."""
    return "go" if load.startswith("udp") else "haproxy"


def write_report(samples: Samples, path: Path) -> None:
    """Write the page, and its pictures into ``images/`` next to the page."""
    folder = path.parent / "images"
    folder.mkdir(parents=True, exist_ok=True)
    for name, picture in pictures_of(samples).items():
        (folder / f"benchmarks-{name}.svg").write_text(picture)
    path.write_text(page_of(samples))


def page_of(samples: Samples) -> str:
    """Return the page as Markdown."""
    parts = {
        "machine": table(("what", "here"), samples.machine.items()),
        "rates": _rates(samples),
        "cpu": _cpu(samples),
        "latency": _latency(samples),
        "memory": _memory(samples),
        "client_address": _client_address(samples),
        "delayed_acks": _tables_by_figure(samples, DELAYED_ACKS, ACKS_FIGURES),
        "silent": _load_table(LOADS["silent"], samples) if _has(samples, "silent") else "Not run.",
    }
    return Template(PAGE.read_text()).substitute(
        {name: marked(part, "bench") for name, part in parts.items()}, spread=_spread(samples)
    )


def pictures_of(samples: Samples) -> dict[str, str]:
    """Return the pictures as SVG, by the question that they answer."""

    def to_base(metric_of: Callable[[Load], str]) -> _Value:
        return lambda load, way: samples.ratio(load, metric_of(LOADS[load]), way, base_of(load))

    def added(metric: str, way: str) -> float | None:
        return None if way == "direct" else samples.added("open50", metric, way, "direct")

    def per_connection(load: str, way: str) -> float | None:
        return samples.median(load, way, "bytes_each")

    peers = "HAProxy's (UDP: the Go proxy's)"
    proxies = [way for way in LEGEND if way not in IN_KERNEL]
    compared = ["ours", "ours-node", "haproxy-client", "haproxy"]
    titles = {load: HEADS[load] for load in MAIN}
    heads = {metric: METRICS[metric].head for metric in QUANTILES[:2]}
    big = [key for key in HELD if _has(samples, key)][-1:]
    return {
        "rates": _picture(
            f"Rates as multiples of {peers}", titles, to_base(lambda load: load.rate)
        ),
        "cpu": _picture(
            f"The machine's CPU for the same work, as multiples of {peers}",
            {load: _unit(LOADS[load]) for load in MAIN},
            to_base(_machine_metric),
        ),
        "latency": _picture(
            "µs added to a request at half of the slowest proxy's rate",
            heads,
            added,
            are_ratios=False,
        ),
        "memory": _picture(
            "User memory for each idle connection, bytes",
            {key: LOADS[key].short for key in big},
            per_connection,
            proxies,
            are_ratios=False,
        ),
        "client-address": _picture(
            "The machine's CPU for the same work, as multiples of HAProxy's with its defaults",
            {load: _unit(LOADS[load]) for load in ADDRESSED},
            to_base(_machine_metric),
            compared,
        ),
    }


def details_of(samples: Samples) -> str:
    """Return all results, in one table per load."""
    parts = [_load_table(LOADS[key], samples) for key in MAIN if _has(samples, key)]
    parts += [_open_table(key, samples) for key in OPEN if _has(samples, key)]
    if any(_has(samples, key) for key in DELAYED_ACKS):
        parts.append(_tables_by_figure(samples, DELAYED_ACKS, ACKS_FIGURES))
    if any(_has(samples, key) for key in HELD):
        parts.append(_tables_by_figure(samples, HELD, HELD_FIGURES))
    if _has(samples, "silent"):
        parts.append(_load_table(LOADS["silent"], samples))
    return "\n\n".join(parts)


def goals_of(samples: Samples) -> str:
    """Return the goals as Markdown, with the measured values and the number of goals met."""
    verdicts = judge(samples)
    met = sum(verdict.is_met is True for verdict in verdicts)
    parts = [_goals(verdicts), _reasons(verdicts), f"{met} of {len(verdicts)} goals are met"]
    return "\n\n".join(part for part in parts if part)


def _has(samples: Samples, key: str) -> bool:
    return key in samples.loads()


def _rates(samples: Samples) -> str:
    def cell(load: str, way: str) -> str:
        metric = LOADS[load].rate
        ratio = samples.ratio(load, metric, way, base_of(load))
        errors = sum(samples.values(load, way, "errors").values())
        beside = f" ({ratio:.2f})" if ratio else ""
        beside += f", {errors:,.0f} errors" if errors else ""
        return f"{_cell(samples, load, way, metric)}{beside}"

    return _by_way(samples, MAIN, HEADS, cell)


def _cpu(samples: Samples) -> str:
    def cell(load: str, way: str) -> str:
        own, whole = (metric_of(LOADS[load]) for metric_of in (_proxy_metric, _machine_metric))
        value = samples.median(load, way, own)
        beside = "" if value is None else f" ({_figure(value, own)})"
        return f"{_figure(samples.median(load, way, whole), whole)}{beside}"

    return _by_way(samples, MAIN, {load: _unit(LOADS[load]) for load in MAIN}, cell)


def _latency(samples: Samples) -> str:
    """Return the table of latencies added to ``direct``, whose own row contains its latencies."""

    def cell(load: str, way: str) -> str:
        if not samples.values(load, way, "scheduled"):
            return samples.note(load, way) or "–"
        if way == "direct":
            return " / ".join(_figure(samples.median(load, way, m), m) for m in QUANTILES)
        added = [samples.added(load, metric, way, "direct") for metric in QUANTILES]
        return " / ".join("–" if value is None else f"{value:+,.0f}" for value in added)

    heads = {}
    for key in OPEN:
        rates = [r for way in WAYS for r in samples.values(key, way, "scheduled").values()]
        short = LOADS[key].short
        heads[key] = f"{max(rates):,.0f} requests/s, {short}" if rates else short
    return _by_way(samples, OPEN, heads, cell)


def _memory(samples: Samples) -> str:
    keys = [key for key in HELD if _has(samples, key)]
    if not keys:
        return "Not run."
    few, many = keys[0], keys[-1]
    columns = [
        ("before any connection, MB", few, "base_mb"),
        (f"bytes for each of {LOADS[many].short}", many, "bytes_each"),
        ("descriptors for each", many, "descriptors_each"),
        ("exchanges/s over them", many, "exchanges"),
        ("proxy CPU, µs each", many, "cpu_us"),
    ]
    rows = []
    for way in (way for way in WAYS if way in samples.ways(many)):
        cells = [_figure(samples.median(load, way, metric), metric) for _, load, metric in columns]
        cells[1] = _cell(samples, many, way, "bytes_each")
        rows.append([WAYS[way].label, *cells])
    return table(("", *(head for head, _, _ in columns)), rows, others=RIGHT)


def _client_address(samples: Samples) -> str:
    """Return the table of the machine's CPU time with the client's and with the node's address."""
    keys = [key for key in ADDRESSED if _has(samples, key)]
    rows = []
    for name, client, node in (
        ("**userspace-proxy**", "ours", "ours-node"),
        ("HAProxy", "haproxy-client", "haproxy"),
    ):
        cells = []
        for key in keys:
            metric = _machine_metric(LOADS[key])
            figures = [_figure(samples.median(key, way, metric), metric) for way in (client, node)]
            ratio = samples.ratio(key, metric, client, node)
            cells += [*figures, "–" if ratio is None else f"{ratio:.2f}"]
        rows.append([name, *cells])
    if not keys:
        return "Not run."
    head = [
        title
        for key in keys
        for title in (f"{_unit(LOADS[key])}: client's address", "node's", "ratio")
    ]
    return table(("", *head), rows, others=RIGHT)


def _by_way(
    samples: Samples,
    loads: Sequence[str],
    heads: Mapping[str, str],
    cell: Callable[[str, str], str],
) -> str:
    """Return a table with a row per way, and a column per load that was run."""
    keys = [key for key in loads if _has(samples, key)]
    ways = [way for way in WAYS if any(way in samples.ways(key) for key in keys)]
    rows = [
        [WAYS[way].label, *(cell(key, way) if way in samples.ways(key) else "–" for key in keys)]
        for way in ways
    ]
    if not keys:
        return "Not run."
    return table(("", *(heads[key] for key in keys)), rows, others=RIGHT)


def _picture(
    title: str,
    groups: Mapping[str, str],
    value: _Value,
    ways: Collection[str] = tuple(LEGEND),
    *,
    are_ratios: bool = True,
) -> str:
    """Return an SVG of bars, whose groups are loads or metrics with their titles.

    Args:
        are_ratios: Whether the figures are ratios, so that 1 is marked.
    """
    drawn = []
    for key, head in groups.items():
        values = {way: found for way in ways if (found := value(key, way)) is not None}
        if values:
            drawn.append(Group(head, values))
    used = {way: LEGEND[way] for way in ways if any(way in group.values for group in drawn)}
    return draw_bars(title, used, drawn, are_ratios=are_ratios)


def _machine_metric(load: Load) -> str:
    return "machine_s_per_gb" if load.rate == "gbits" else "machine_us"


def _proxy_metric(load: Load) -> str:
    return "cpu_s_per_gb" if load.rate == "gbits" else "cpu_us"


def _unit(load: Load) -> str:
    """Return a load's name, and the unit of its CPU time for one unit of work."""
    amount = "s for each GB" if load.rate == "gbits" else f"µs for each of its {load.rate}"
    return f"{load.short}, {amount}"


def _load_table(load: Load, samples: Samples) -> str:
    unit = METRICS[load.rate].head
    head = ["", unit, f"to Go's {unit}", *(METRICS[m].head for m in load.metrics[1:])]
    rows = []
    for key in (key for key in WAYS if key in samples.ways(load.key)):
        rate = _cell(samples, load.key, key, load.rate)
        others = [_figure(samples.median(load.key, key, m), m) for m in load.metrics[1:]]
        ratio = samples.ratio(load.key, load.rate, key, "go")
        rows.append([WAYS[key].label, rate, f"{ratio:,.2f}" if ratio else "–", *others])
    title = f"{load.short[:1].upper()}{load.short[1:]}"
    return (
        f"### {title}{': ' * bool(load.details)}{load.details}\n\n{table(head, rows, others=RIGHT)}"
    )


def _open_table(key: str, samples: Samples) -> str:
    """Return the table of one rate; a way without figures has a note instead."""
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
    """Return a table for each figure, with a column per load.

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
    """Return a median as text, with the reason if a round lacks a value."""
    value, note = samples.median(load, way, metric), samples.note(load, way)
    if value is None:
        return note or _figure(value, metric)
    return f"{_figure(value, metric)}{f' ({note})' if note else ''}"


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
    """Return why goals aren't met; empty if all are met."""
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
    """Return the median and the highest spread between rounds, as a part of a sentence."""
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
