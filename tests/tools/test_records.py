"""The index of docs/adr has each record once, and says in a line what holds."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from .site import ROOT

FOLDER = ROOT / "docs" / "adr"
RECORDS = sorted(FOLDER.glob("[0-9]*.md"))
WORDS_MAX = 20
BY_SUBJECT, MERGED = (FOLDER / "README.md").read_text(encoding="utf-8").split("## Merged records")
ROW = re.compile(
    r"^\| \[(?P<number>\d{4})\]\((?P<file>[^()]+)\) \| (?P<holds>.*) \|$", re.MULTILINE
)
MERGED_ROW = re.compile(
    r"^\| (?P<numbers>[\d, ]+) \| \[\d{4}\]\((?P<file>[^()]+)\) \|$", re.MULTILINE
)


def test_each_record_has_one_row_and_each_row_its_record() -> None:
    rows = Counter(row["file"] for row in ROW.finditer(BY_SUBJECT))
    assert rows == Counter(file.name for file in RECORDS)


@pytest.mark.parametrize("row", tuple(ROW.finditer(BY_SUBJECT)), ids=lambda row: row["number"])
def test_a_row_has_its_records_number_and_few_words(row: re.Match[str]) -> None:
    assert row["file"].startswith(f"{row['number']}-")
    assert len(row["holds"].split()) <= WORDS_MAX


@pytest.mark.parametrize("row", tuple(MERGED_ROW.finditer(MERGED)), ids=lambda row: row["numbers"])
def test_a_merged_record_is_gone_and_the_one_that_replaces_it_names_it(row: re.Match[str]) -> None:
    status = (FOLDER / row["file"]).read_text(encoding="utf-8").split("\n\n")[0]
    for number in row["numbers"].split(", "):
        assert list(FOLDER.glob(f"{number}-*")) == []
        assert number in status


@pytest.mark.parametrize("file", RECORDS, ids=lambda file: file.name[:4])
def test_a_record_begins_with_its_number_and_its_status(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    assert re.match(rf"# ADR {file.name[:4]}: .+\n\n?Status: accepted", text)
