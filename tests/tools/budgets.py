"""Compares the lines of each area with its budget, which CONTRIBUTING.md declares.

| area | `folder` `folder` … | budget |      a file counts where its longest folder is listed
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

TABLE = "CONTRIBUTING.md"
MAY_EXCEED = 0.03
_ROW = re.compile(r"^\| ([^|]+) \| (`[^|]+`) \| ([\d,]+) \|$", re.MULTILINE)


class Area(NamedTuple):
    """Modules that share a budget."""

    name: str
    folders: tuple[str, ...]
    """Files and folders, relative to the checkout."""
    budget: int
    """Lines of Python."""


def read_areas(text: str) -> list[Area]:
    """Return the rows of the table in a page."""
    return [
        Area(name, tuple(re.findall(r"`([^`]+)`", folders)), int(lines.replace(",", "")))
        for name, folders, lines in _ROW.findall(text)
    ]


def count_lines(areas: Iterable[Area], texts: Mapping[str, str]) -> Counter[str]:
    """Return the number of lines of each area; modules outside all areas count as "no area"."""
    owners = {folder: area.name for area in areas for folder in area.folders}
    lines = Counter[str]()
    for path, text in texts.items():
        above = [folder for folder in owners if f"{path}/".startswith(f"{folder.rstrip('/')}/")]
        owner = owners[max(above, key=len)] if above else "no area"
        lines[owner] += len(text.splitlines())
    return lines


def report(areas: Iterable[Area], lines: Mapping[str, int]) -> Iterator[str]:
    """Yield a line for each area, with its number of lines and its budget."""
    yield "lines of each area, and its budget:"
    for area in areas:
        yield f"  {lines.get(area.name, 0):7,} of {area.budget:7,}  {area.name}"


def find_problems(areas: Iterable[Area], lines: Mapping[str, int]) -> Iterator[str]:
    """Yield a problem for each area more than 3 % above its budget, and for lines in no area."""
    for area in areas:
        if (count := lines.get(area.name, 0)) > (1 + MAY_EXCEED) * area.budget:
            yield (
                f"{TABLE}: {area.name} has {count:,} lines, and a budget of {area.budget:,}: "
                "remove some, or raise it, and say in the commit for which behaviour of users"
            )
    if stray := lines.get("no area", 0):
        yield f"{TABLE}: {stray:,} lines are in no area of the table of budgets"
