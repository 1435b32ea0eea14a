"""The notes of a release are its version's section of the CHANGELOG."""

from __future__ import annotations

import pytest

from .addresses import repository
from .notes import main


def test_links_on_a_release_page_point_to_files_of_the_tag(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.tools.notes.__version__", "0.1.0")
    assert main(["--tag=v0.1.0"]) == 0
    printed = capsys.readouterr().out
    files = f"{repository}/blob/v0.1.0"
    assert f"({files}/docs/services.md)" in printed
    assert "(docs/" not in printed
