"""Decision records, CONTRIBUTING's table and the examples' commands match the files."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from .clones import ROOT, git

FOLDER = ROOT / "docs" / "adr"
RECORDS = sorted(FOLDER.glob("[0-9]*.md"))
WORDS_MAX = 20
BY_SUBJECT, MERGED = (FOLDER / "README.md").read_text(encoding="utf-8").split("## Merged records")
ROW = re.compile(r"^- \[(?P<number>\d{4})\]\((?P<file>[^()]+)\) (?P<holds>.*)$", re.MULTILINE)
MERGED_ROW = re.compile(r"^- (?P<numbers>[\d, ]+): \[\d{4}\]\((?P<file>[^()]+)\)$", re.MULTILINE)


def test_each_decision_record_is_listed_exactly_once() -> None:
    rows = Counter(row["file"] for row in ROW.finditer(BY_SUBJECT))
    assert rows == Counter(file.name for file in RECORDS)


@pytest.mark.parametrize("row", tuple(ROW.finditer(BY_SUBJECT)), ids=lambda row: row["number"])
def test_an_index_row_has_its_adr_number_and_a_short_summary(row: re.Match[str]) -> None:
    assert row["file"].startswith(f"{row['number']}-")
    assert len(row["holds"].split()) <= WORDS_MAX


@pytest.mark.parametrize("row", tuple(MERGED_ROW.finditer(MERGED)), ids=lambda row: row["numbers"])
def test_a_merged_adr_is_removed_and_named_by_its_replacement(row: re.Match[str]) -> None:
    status = (FOLDER / row["file"]).read_text(encoding="utf-8").split("\n\n")[0]
    for number in row["numbers"].split(", "):
        assert list(FOLDER.glob(f"{number}-*")) == []
        assert number in status


@pytest.mark.parametrize("file", RECORDS, ids=lambda file: file.name[:4])
def test_a_decision_record_begins_with_its_number_and_its_status(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    assert re.match(rf"# ADR {file.name[:4]}: .+\n\n?Status: accepted", text)


def test_each_cited_decision_record_exists() -> None:
    named = git(ROOT, "grep", "-hoE", r"(ADRs? |adr/)[0-9]{4}(, [0-9]{4})*", "--", ":!tests/tools")
    cited = {number for one in named.splitlines() for number in re.findall(r"\d{4}", one)}
    assert cited - {file.name[:4] for file in RECORDS} == set()


PAGE = ROOT / "CONTRIBUTING.md"
PACKAGE = Path("userspace_proxy")
SPECIMENS = {
    "a balancing strategy": "power.of.two.choices|PowerOfTwoChoices",
    "a steering": r"LocalSteering|\blocal\.missing",
    "a state of a Service port": "NONE_ADMITTED",
    "a problem of the whole node": "SOURCE_AWAY|source-away",
}
SEARCHED = ("userspace_proxy/*.py", "README.md", "docs/*.md", ":!docs/adr", ":!docs/api.md")
"""Code and handwritten pages, as git's patterns; docs/api.md is generated."""


def named_in(row: str) -> Iterator[Path]:
    """Yield the files and folders in a row, such as ``docs/a.md``, ``model/`` or ``model.a``."""
    for code in re.findall(r"`([^`\s]+)`", row):
        dotted = Path(code.replace(".", "/"))
        for path in (Path(code), PACKAGE / code, PACKAGE / dotted.with_suffix(".py")):
            if (ROOT / path).exists():
                yield path


@pytest.mark.parametrize("addition", SPECIMENS)
def test_contributing_lists_each_file_that_an_addition_edits(addition: str) -> None:
    (row,) = re.findall(rf"(?m)^\| {re.escape(addition)} \| (.*) \|$", PAGE.read_text())
    named = set(named_in(row))
    edited = git(ROOT, "grep", "-lE", SPECIMENS[addition], "--", *SEARCHED).split()
    assert edited
    missing = [path for path in map(Path, edited) if named.isdisjoint({path, *_folders_of(path)})]
    assert missing == []


def _folders_of(path: Path) -> Sequence[Path]:
    """Return the folders in which a row may list a file; for an ``__init__``, above its own."""
    return (path.parent if path.name == "__init__.py" else path).parents


EXAMPLES = [path.relative_to(ROOT) for path in (ROOT / "examples").glob("*pytest/test_*.py")]


def command_of(example: Path) -> list[str]:
    """Return the arguments of the command in an example's docstring, without variables."""
    said = ast.get_docstring(ast.parse((ROOT / example).read_text())) or ""
    named = re.search(r"[Rr]un them by ``(?:\w+=\S+ )?pytest ([^`]+)``", said)
    assert named, f"{example} names no command"
    return named[1].split()


@pytest.mark.parametrize("example", EXAMPLES, ids=str)
@pytest.mark.parametrize("is_checkout", [True, False], ids=["checkout", "copy"])
def test_the_command_of_an_example_collects_its_tests(
    example: Path, is_checkout: bool, tmp_path: Path
) -> None:
    root = ROOT
    if not is_checkout:
        root = tmp_path
        shutil.copytree(ROOT / example.parent, root / example.parent)
        (root / example.parent / "pytest.ini").unlink()
    found = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", *command_of(example)),
            *("-p", "userspace_proxy_testing.plugin", "-p", "no:cacheprovider"),
            *("--collect-only", "-q"),
        ],
        cwd=root,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stdout + found.stderr
    assert f"{example.name}::" in found.stdout


def test_at_least_three_pytest_examples_are_found() -> None:
    assert len(EXAMPLES) >= 3
