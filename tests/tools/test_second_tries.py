"""The ledger of second tries: what is noted, what is printed, and when a run fails."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from . import second_tries
from .second_tries import judge, main


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, which the program uses."""
    monkeypatch.setattr(second_tries, "CACHE", tmp_path)
    return tmp_path


def fail(cache: Path, part: str, *tests: str) -> None:
    """Let pytest have written that these tests of a part failed."""
    folder = cache / part / "v" / "cache"
    folder.mkdir(parents=True)
    (folder / "lastfailed").write_text(json.dumps(dict.fromkeys(tests, True)))


def test_failures_of_all_parts_are_listed_at_the_end(
    cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fail(cache, "unit", "tests/unit/test_b.py::b")
    fail(cache, "node", "tests/node/test_a.py::a[local]")
    assert main(["note", "unit"]) == main(["note", "node"]) == main(["report"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "needed a second try:",
        "  unit: tests/unit/test_b.py::b",
        "  node: tests/node/test_a.py::a[local]",
    ]


def test_a_run_without_second_tries_says_so(
    cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report"]) == 0
    assert capsys.readouterr().out == "no test needed a second try\n"


@pytest.mark.parametrize(("count", "may_pass"), [(0, True), (2, True), (3, False)])
def test_more_than_two_second_tries_fail_the_run(count: int, may_pass: bool) -> None:
    lines, is_good = judge([f"unit: {n}" for n in range(count)])
    assert is_good is may_pass
    assert lines[-1].startswith("error: ") is not may_pass


def test_a_wrong_command_line_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["note"]) == 2
    assert "usage: " in capsys.readouterr().err
