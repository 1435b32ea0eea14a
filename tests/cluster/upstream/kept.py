"""Reads the runs in docs/conformance.md: a new run replaces only its own column.

Rule 1: reading and rendering a page gives the same page.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from ..nodes.families import FAMILIES
from ..nodes.proxies import PROXIES
from .groups import CNIS, GROUPS, PASSED, Result
from .report import (
    CNI,
    COUNT,
    DURATION,
    EVERYWHERE,
    KUBERNETES,
    MARKS,
    THOSE_OF,
    VERSION,
    Column,
    heading,
)
from .run import Run

_ABOUT = {VERSION, KUBERNETES, CNI, COUNT, DURATION}
_OUTCOMES = {mark: outcome for outcome, mark in MARKS.items()}
_TABLES = {
    heading(group, families): (name, families)
    for name, group in GROUPS.items()
    for families in FAMILIES
    if families in group.families and name != "ci"
}
_TITLES = {proxy.title: name for name, proxy in PROXIES.items()}
_COLUMN = rf"(?:{'|'.join(map(re.escape, PROXIES))}) with (?:{'|'.join(CNIS)})"
_COLUMNS = re.compile(rf"(?:; )?({_COLUMN}(?:, {_COLUMN})*): ")
_FINDING = re.compile(r"- \*(.*?)\*: (.*)")


def read_runs(page: str) -> list[Run]:
    """Return the runs on a page; their tests have no duration."""
    listed: dict[str, Sequence[str]] = {}
    return [run for part in page.split("\n## ")[1:] for run in _read_table(part, listed)]


def _read_table(part: str, listed: dict[str, Sequence[str]]) -> Iterator[Run]:
    lines = part.splitlines()
    group, families = _TABLES[lines[0]]
    (_, *titles), _, *rows = [line[2:-2].split(" | ") for line in lines if line.startswith("|")]
    cells = {name: values for name, *values in rows}
    listed[lines[0]] = _read_passed(part, listed)
    cells |= dict.fromkeys(listed[lines[0]], [MARKS[PASSED]] * len(titles))
    proxies = [_TITLES[title] for title in titles]
    columns = list(zip(proxies, (_bare(cni) for cni in cells[CNI]), strict=True))
    findings = [found for line in lines if (found := _FINDING.fullmatch(line))]
    reasons = {found[1]: dict(_read_reasons(found[2])) for found in findings}
    for index, (proxy, cni) in enumerate(columns):
        results = _read_results(cells, index, (proxy, cni), reasons)
        yield Run(
            proxy,
            group,
            families,
            version=_bare(cells[VERSION][index]),
            kubernetes=_bare(cells[KUBERNETES][index]),
            cni=cni,
            seconds=float(cells[DURATION][index].removesuffix(" s")),
            results=tuple(results),
        )


def _read_passed(part: str, listed: Mapping[str, Sequence[str]]) -> Sequence[str]:
    """Return the tests that a part lists, or the tests of the part to which it refers."""
    _, _, rest = part.partition(EVERYWHERE)
    if rest.startswith(f" {THOSE_OF}"):
        return listed[rest.splitlines()[0].removeprefix(f" {THOSE_OF}").removesuffix(".")]
    return [line.removeprefix("- ") for line in rest.split("\n\n")[1].splitlines()] if rest else []


def _read_results(
    cells: Mapping[str, Sequence[str]],
    index: int,
    column: Column,
    reasons: Mapping[str, Mapping[Column, str]],
) -> Iterator[Result]:
    for name, values in sorted(cells.items()):
        if name in _ABOUT or not values[index]:
            continue
        outcome = _OUTCOMES[values[index]]
        reason = "" if outcome == PASSED else reasons[name][column]
        yield Result(name, outcome, 0.0, reason)


def _read_reasons(finding: str) -> Iterator[tuple[Column, str]]:
    _, *parts = _COLUMNS.split(finding)
    for columns, reason in zip(parts[::2], parts[1::2], strict=True):
        for column in columns.split(", "):
            proxy, _, cni = column.partition(" with ")
            yield (proxy, cni), reason


def _bare(cell: str) -> str:
    return cell.strip("`")
