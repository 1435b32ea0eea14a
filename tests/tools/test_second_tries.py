"""The ledger of second tries: what is noted, what is printed, and when a run fails."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from . import second_tries
from .second_tries import judge, main


def test_failures_of_all_parts_are_listed_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(second_tries, "CACHE", tmp_path)
    for part, test in (("unit", "test_b.py::b"), ("node", "test_a.py::a[local]")):
        folder = tmp_path / part / "v" / "cache"
        folder.mkdir(parents=True)
        (folder / "lastfailed").write_text(json.dumps({test: True}))
        assert main(["note", part]) == 0
    assert main(["report"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "needed a second try:",
        "  unit: test_b.py::b",
        "  node: test_a.py::a[local]",
    ]


@pytest.mark.parametrize(("count", "may_pass"), [(0, True), (2, True), (3, False)])
def test_more_than_two_second_tries_fail_the_run(count: int, may_pass: bool) -> None:
    lines, is_good = judge([f"unit: {n}" for n in range(count)])
    assert is_good is may_pass
    assert lines[-1].startswith("error: ") is not may_pass
