"""Writes docs/reliability.md: the text of ``page.md`` with the tables of one run."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from string import Template

from tests.node.load import Outcome
from tests.tools.markdown import marked, table

from .measuring import Measured
from .rig import CART_RATE, WEB_RATE
from .row import Limits

PAGE = Path(__file__).with_name("page.md")
HEAD = (
    "row",
    "what breaks",
    "promised, at most",
    "what clients see",
    "shown as",
    "back after",
    "verdict",
)
# Each row has its own folder, whose name differs in each run.
_FOLDER = re.compile(r"/\S*/faults-\w{8}(?=/)")
_REASONS = {
    "ConnectionResetError": "reset",
    "ConnectionRefusedError": "refused",
    "TimeoutError": "timed out",
    "ConnectionError": "cut short",
    "OSError": "unreachable",
}


def page_of(
    results: Sequence[Measured], machine: Mapping[str, str], unmeasured: Sequence[str] = ()
) -> str:
    """Return the page as Markdown.

    Args:
        results: All rows, in the order of the page.
        unmeasured: Names of rows that could not be measured.
    """
    return Template(PAGE.read_text(encoding="utf-8")).substitute(
        summary=summary_of(results, unmeasured),
        machine=_marked(table(("what", "here"), machine.items())),
        web_rate=WEB_RATE,
        cart_rate=CART_RATE,
        floor=f"{Limits().other_p99_ms:g}",
        promises=_marked(table(("promise", "tested by", "worst figure"), promises(results))),
        groups="\n\n".join(_groups(results)),
        not_promised="\n".join(_not_promised(results)) or "Nothing of the above.",
    )


def summary_of(results: Sequence[Measured], unmeasured: Sequence[str]) -> str:
    """Return the numbers of rows that hold, hold with a limit, failed, or weren't measured."""
    failed = sum(bool(measured.problems()) for measured in results)
    partly = sum(bool(m.row.not_promised) and not m.problems() for m in results)
    parts = [f"{len(results) - failed - partly} hold"]
    if partly:
        parts.append(f"{partly} hold with a limit that is stated")
    if failed:
        parts.append(f"{failed} failed in this run")
    if unmeasured:
        parts.append(f"{len(unmeasured)} could not be measured ({', '.join(unmeasured)})")
    return f"Of {len(results) + len(unmeasured)} rows, {', '.join(parts)}."


def line_of(measured: Measured) -> tuple[str, ...]:
    """Return the cells of a row in the order of HEAD."""
    row = measured.row
    # Omit the texts of problems and log lines, because they contain the row's names.
    kinds = [shown.partition(" “")[0].removeprefix("metric ") for shown in measured.shown if shown]
    return tuple(
        _FOLDER.sub("…", cell)
        for cell in (
            f"`{row.name}`",
            row.breaks,
            ", ".join(row.limits.promises()),
            "; ".join([describe(measured.web), *measured.figures]),
            ", ".join(kinds),
            f"{measured.back_s:.1f} s",
            verdict_of(measured),
        )
    )


def verdict_of(measured: Measured) -> str:
    """Return the verdict on a row, with the reason if its limits don't hold."""
    if problems := measured.problems():
        return f"**fails**: {'; '.join(problems)}"
    holds = "holds, with a limit" if measured.row.not_promised else "holds"
    return f"{holds} (second try)" if measured.is_second_try else holds


def describe(outcome: Outcome) -> str:
    """Return a description of the failures of the faulty Service's clients."""
    failed = outcome.failed
    if not failed:
        return f"0 of {outcome.made} failed, slowest {_seconds(outcome.slowest_s)}"
    reasons = ", ".join(f"{n} {_REASONS.get(reason, reason)}" for reason, n in failed.items())
    slowest = f", slowest {_seconds(outcome.slowest_s)}" if outcome.slowest_s else ""
    outage = f", none served for {_seconds(outcome.outage_s)}" if slowest else ""
    return f"{failed.total()} of {outcome.made} failed ({reasons}){slowest}{outage}"


def promises(results: Sequence[Measured]) -> Iterator[tuple[str, str, str]]:
    """Yield each limit with the rows that test it and the worst measured figure."""
    count = f"all {len(results)} rows"
    kept = [measured for measured in results if measured.row.limits.same_processes]
    yield (
        "the proxy survives",
        f"{len(kept)} rows; the others kill it",
        f"{sum(not measured.survived for measured in kept)} ended",
    )
    others = [measured for measured in results if not measured.row.limits.other_failed]
    slowest = max(others, key=lambda m: m.cart.p99_ms)
    yield (
        "no connection to another Service fails, and its p99 stays within twice its quiet value",
        f"{len(others)} rows",
        f"{sum(m.cart.failed.total() for m in others)} of {sum(m.cart.made for m in others):,} "
        f"failed; highest p99 {slowest.cart.p99_ms:.0f} ms, without the proxy "
        f"{slowest.direct.p99_ms:.0f} ms ({slowest.row.name})",
    )
    wordiest = max(results, key=lambda m: len(m.log_lines))
    yield (
        "few log lines, however many clients there are",
        count,
        f"{len(wordiest.log_lines)} lines ({wordiest.row.name})",
    )
    yield (
        "a metric, a problem on the page or a log line shows the cause",
        count,
        f"{sum(all(m.shown) for m in results)} of {len(results)} rows showed all that was expected",
    )
    latest = max(results, key=lambda m: m.back_s)
    yield (
        "all is as before in a stated time after the repair",
        count,
        f"{latest.back_s:.1f} s ({latest.row.name})",
    )
    largest = max(results, key=lambda m: m.after.grown_mib(m.before))
    yield (
        "nothing leaks",
        count,
        f"memory +{largest.after.grown_mib(largest.before):.0f} MiB ({largest.row.name})",
    )


def _groups(results: Sequence[Measured]) -> Iterator[str]:
    for name in dict.fromkeys(measured.row.group for measured in results):
        rows = [line_of(measured) for measured in results if measured.row.group == name]
        yield f"## {name}\n\n{_marked(table(HEAD, rows))}"


def _marked(part: str) -> str:
    return marked(part, "faults")


def _not_promised(results: Iterable[Measured]) -> Iterator[str]:
    rows: dict[str, list[str]] = {}
    for measured in results:
        if reason := measured.row.not_promised:
            rows.setdefault(reason, []).append(f"`{measured.row.name}`")
    for reason, names in rows.items():
        yield f"- {', '.join(names)}: {reason}"


def _seconds(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds * 1e3:.0f} ms"
