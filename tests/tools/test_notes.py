"""The notes of a release are the CHANGELOG's section of its version."""

from __future__ import annotations

import pytest

from userspace_proxy import __version__

from .addresses import repository
from .notes import CHANGELOG, NoNotesError, main, notes, version_of

TEXT = """\
# Changelog

## Unreleased

## 0.1.0 - 2027-01-31

Words.

### Services
- A line.

## 0.1.0rc1

- Another line.
"""


def test_they_are_the_lines_below_the_versions_heading() -> None:
    assert notes(TEXT, "0.1.0") == "Words.\n\n### Services\n- A line.\n"
    assert notes(TEXT, "0.1.0rc1") == "- Another line.\n"


@pytest.mark.parametrize("version", ["0.2.0", "0x1.0", "Unreleased"])
def test_a_version_without_lines_has_none(version: str) -> None:
    with pytest.raises(NoNotesError, match=f"says nothing about {version}"):
        notes(TEXT, version)


@pytest.mark.parametrize("tag", ["0.1.0", "v0.1.1", "v0.1.0-1", ""])
def test_another_tag_releases_nothing(tag: str) -> None:
    with pytest.raises(NoNotesError, match=r"version is 0\.1\.0"):
        version_of(tag, "0.1.0")


def test_on_a_releases_page_links_lead_to_the_files_of_the_tag(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.tools.notes.__version__", "0.1.0")
    assert main(["--tag=v0.1.0"]) == 0
    printed = capsys.readouterr().out
    files = f"{repository}/blob/v0.1.0"
    assert f"({files}/docs/services.md)" in printed
    assert "(docs/" not in printed


def test_a_wrong_tag_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--tag=v9"]) == 1
    assert capsys.readouterr().err == (
        f"error: the tag is 'v9', but this checkout's version is {__version__}\n"
    )


def test_a_section_has_at_most_eighty_lines() -> None:
    versions = [line[3:] for line in CHANGELOG.read_text().splitlines() if line[:3] == "## "]
    assert versions[0] == "Unreleased"
    for version in versions[1:]:
        assert len(notes(CHANGELOG.read_text(), version.split()[0]).splitlines()) <= 80
