"""The number of handwritten words on the pages is limited.

Generated text between markers doesn't count: see `markdown.without_marked`.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from userspace_proxy.causes.cause import CauseCode

from .clones import ROOT
from .markdown import without_marked

DOCS = ROOT / "docs"
RECORDS = DOCS / "adr"
ALL_MAX = 34_000
RECORDS_MAX = 26_000
RECORD_MAX = 600
"""A record is one page: the decision, the reason, measurements, and rejected alternatives."""
FIRST_MAX = 900
"""The maximum number of words of README, and of the page for a first deployment, which users read
before anything runs."""
SECTION_MAX = 150
"""The maximum number of words of a cause's section, which users read during an outage."""
CHANGELOG_LINES_MAX = 80

SECTIONS = {
    found["heading"]: found["text"]
    for found in re.finditer(
        r"^### (?P<heading>[a-z-]+)\n(?P<text>.*?)(?=^##|\Z)",
        (DOCS / "troubleshooting.md").read_text(encoding="utf-8"),
        re.DOTALL | re.MULTILINE,
    )
}


def words_of(page: Path) -> int:
    """Return the number of handwritten words of a page."""
    return len(without_marked(page.read_text(encoding="utf-8")).split())


def test_the_docs_together_are_within_their_word_limit() -> None:
    counts = {page.name: words_of(page) for page in sorted(DOCS.glob("*.md"))}
    assert sum(counts.values()) <= ALL_MAX, counts


def test_the_decision_records_together_are_within_their_word_limit() -> None:
    counts = {page.name: words_of(page) for page in sorted(RECORDS.glob("*.md"))}
    assert sum(counts.values()) <= RECORDS_MAX, counts


@pytest.mark.parametrize(
    "record", sorted(RECORDS.glob("[0-9]*.md")), ids=lambda record: record.name[:4]
)
def test_a_decision_record_is_within_its_word_limit(record: Path) -> None:
    assert words_of(record) <= RECORD_MAX


@pytest.mark.parametrize("page", ["README.md", "docs/first-deployment.md"])
def test_an_introductory_page_is_within_its_word_limit(page: str) -> None:
    path = ROOT / page
    assert not path.exists() or words_of(path) <= FIRST_MAX


@pytest.mark.parametrize("code", CauseCode)
def test_the_section_of_a_cause_is_within_its_word_limit(code: CauseCode) -> None:
    assert len(SECTIONS[code].split()) <= SECTION_MAX


def test_the_changelog_is_within_its_line_limit() -> None:
    lines = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= CHANGELOG_LINES_MAX
