"""The notes of a release are its version's section of the CHANGELOG."""

from __future__ import annotations

import pytest

from .addresses import repository
from .notes import CHANGELOG, main, notes


def test_links_on_a_release_page_point_to_files_of_the_tag(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.tools.notes.__version__", "0.1.0")
    assert main(["--tag=v0.1.0"]) == 0
    printed = capsys.readouterr().out
    files = f"{repository}/blob/v0.1.0"
    assert f"({files}/docs/services.md)" in printed
    assert "(docs/" not in printed


def test_a_section_has_at_most_eighty_lines() -> None:
    versions = [line[3:] for line in CHANGELOG.read_text().splitlines() if line[:3] == "## "]
    assert versions[0] == "Unreleased"
    for version in versions[1:]:
        assert len(notes(CHANGELOG.read_text(), version.split()[0]).splitlines()) <= 80
