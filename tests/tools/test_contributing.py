"""CONTRIBUTING's table of additions names the files that an addition of that kind edits.

A specimen is one of a kind that has nothing special: the files that name it are those that the next
one of the kind edits.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from .clones import git
from .wheels import ROOT

PAGE = ROOT / "CONTRIBUTING.md"
PACKAGE = Path("userspace_proxy")
SPECIMENS = {
    "a balancing strategy": "power.of.two.choices|PowerOfTwoChoices",
    "a steering": r"LocalSteering|\blocal\.missing",
    "a state of a Service port": "NONE_ADMITTED",
    "a problem of the whole node": "SOURCE_AWAY|source-away",
}
SEARCHED = ("userspace_proxy/*.py", "README.md", "docs/*.md", ":!docs/adr", ":!docs/api.md")
"""Where people write: docs/api.md is made of code."""


def named_in(row: str) -> Iterator[Path]:
    """Yield the files and folders that a row names, as ``docs/a.md``, ``model/`` or ``model.a``."""
    for code in re.findall(r"`([^`\s]+)`", row):
        dotted = Path(code.replace(".", "/"))
        for path in (Path(code), PACKAGE / code, PACKAGE / dotted.with_suffix(".py")):
            if (ROOT / path).exists():
                yield path


@pytest.mark.parametrize("addition", SPECIMENS)
def test_the_files_of_an_addition_are_those_that_name_one(addition: str) -> None:
    (row,) = re.findall(rf"(?m)^\| {re.escape(addition)} \| (.*) \|$", PAGE.read_text())
    named = set(named_in(row))
    edited = git(ROOT, "grep", "-lE", SPECIMENS[addition], "--", *SEARCHED).split()
    assert edited
    missing = [path for path in map(Path, edited) if named.isdisjoint({path, *_folders_of(path)})]
    assert missing == []


def _folders_of(path: Path) -> Sequence[Path]:
    """Return the folders that stand for a file: not its own for the list of what that exports."""
    return (path.parent if path.name == "__init__.py" else path).parents
