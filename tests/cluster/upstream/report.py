"""Renders docs/conformance.md: ``page.md`` with this proxy's runs beside kube-proxy's."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from string import Template

from tests.tools.markdown import CENTRED, marked, table

from ..nodes.proxies import PROXIES
from .groups import CNIS, FAILED, GROUPS, PASSED, SKIP, SKIPPED, Group, Result
from .run import Run

PAGE = Path(__file__).with_name("page.md")
HEADINGS = {"ipv4": "{}", "dual": "{}", "ipv6": "{} over IPv6"}
ADDRESSES = {
    "ipv4": "IPv4 addresses",
    "dual": "addresses of both families, IPv4 first",
    "ipv6": "IPv6 addresses only",
}
"""A description of the families of nodes, pods and Services, by key of `FAMILIES`."""
COLUMNS = (
    "kube-proxy",
    "nftables",
    "nftables-kernel",
    "nftables-sockets",
    "nftables-auto",
    "iptables",
    "local",
    "mixed",
)
"""Keys of `PROXIES` in the order of the columns; each has one column per key of `CNIS`."""
VERSION, KUBERNETES, CNI = "version", "Kubernetes", "pods connected by"
COUNT, DURATION = "**passed**", "duration"
"""The headings of the first rows; the other rows are tests."""
EVERYWHERE, THOSE_OF = "Passed in every column:", "those listed below the table "
Column = tuple[str, str]
"""A key of `PROXIES` and a key of `CNIS`."""
MARKS = {PASSED: "✓", FAILED: "**✗**", SKIPPED: "–"}
# Two tests differ only in their provider.
_LABEL = re.compile(r" \[(?!Provider:)[^\]]*\]")


def render(runs: Collection[Run]) -> str:
    """Return the page; a missing run has no column."""
    versions = sorted({run.kubernetes for run in runs})
    skip = ", ".join(f"`{word.rstrip(':')}`" for word in SKIP)
    parts = []
    listed: dict[tuple[str, ...], str] = {}
    for name, group in GROUPS.items():
        for families in group.families if name != "ci" else ():
            of_table = [run for run in runs if (run.group, run.families) == (name, families)]
            if of_table:
                columns = {(run.proxy, run.cni): run for run in of_table}
                parts.append(_render_table(group, families, columns, listed))
    return Template(PAGE.read_text(encoding="utf-8")).substitute(
        kubernetes=", ".join(versions), skip=skip, tables=marked("\n".join(parts).rstrip(), "e2e")
    )


def heading(group: Group, families: str) -> str:
    return HEADINGS[families].format(group.title)


def _render_table(
    group: Group,
    families: str,
    runs: Mapping[Column, Run],
    listed: dict[tuple[str, ...], str],
) -> str:
    """Return a table and the text below it.

    Args:
        listed: The heading of each list of tests, by the tests in it; this table's list is added.
    """
    columns = [column for column in product(COLUMNS, CNIS) if column in runs]
    results = {c: {plain(one.name): one for one in runs[c].results} for c in columns}
    names = sorted({name for found in results.values() for name in found})
    titles = (PROXIES[proxy].title for proxy, _ in columns)
    rows = [[VERSION, *(f"`{runs[column].version}`" for column in columns)]]
    rows.append([KUBERNETES, *(f"`{runs[column].kubernetes}`" for column in columns)])
    rows.append([CNI, *(f"`{cni}`" for _, cni in columns)])
    rows.append([COUNT, *(_count(runs[column]) for column in columns)])
    rows.append([DURATION, *(f"{runs[column].seconds:.0f} s" for column in columns)])
    passed = [name for name in names if all(_has_passed(results[c].get(name)) for c in columns)]
    for name in (name for name in names if name not in passed):
        cells = [_cell(results[column].get(name)) for column in columns]
        rows.append([name, *cells])
    lines = [f"## {heading(group, families)}", ""]
    lines.append(f"{group.nodes} nodes in three zones, {group.processes} tests at a time.")
    lines.append(f"Nodes, pods and Services have {ADDRESSES[families]}.")
    lines += ["", table(["", *titles], rows, others=CENTRED), ""]
    title = heading(group, families)
    if passed and (first := listed.setdefault(tuple(passed), title)) != title:
        lines += [f"{EVERYWHERE} {THOSE_OF}{first}.", ""]
    elif passed:
        lines += [EVERYWHERE, "", *(f"- {name}" for name in passed), ""]
    findings = list(_findings(names, columns, results))
    return "\n".join([*lines, *findings, *([""] if findings else [])])


def _count(run: Run) -> str:
    ran = [result for result in run.results if result.outcome != SKIPPED]
    return f"{run.passed} of {len(ran)}"


def _has_passed(result: Result | None) -> bool:
    return result is not None and result.outcome == PASSED


def _cell(result: Result | None) -> str:
    return MARKS[result.outcome] if result else ""


def _findings(
    names: Iterable[str],
    columns: Sequence[Column],
    results: Mapping[Column, Mapping[str, Result]],
) -> Iterator[str]:
    """Yield a line for each test that didn't pass in all columns."""
    for name in names:
        found = {column: results[column][name] for column in columns if name in results[column]}
        missed = {column: result for column, result in found.items() if result.outcome != PASSED}
        if not missed:
            continue
        columns_of: dict[str, list[Column]] = {}
        for column, result in missed.items():
            columns_of.setdefault(result.reason.replace("|", "/"), []).append(column)
        why = "; ".join(f"{_listed(some)}: {reason}" for reason, some in columns_of.items())
        yield f"- *{name}*: {why}"


def _listed(columns: Iterable[Column]) -> str:
    return ", ".join(f"{proxy} with {cni}" for proxy, cni in columns)


def plain(name: str) -> str:
    """Return a test's name without labels; ``|``, which would end a cell, becomes ``/``."""
    plain = _LABEL.sub("", name.removeprefix("[sig-network] "))
    return plain.replace("|", "/")
