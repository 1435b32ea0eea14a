"""Tests of what the model follows of rounds."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from .truth import Asked
from .wait_checks import WaitChecks


def test_a_round_ends_once_however_often_its_end_is_written() -> None:
    checks: Any = SimpleNamespace(answers={})
    world: Any = SimpleNamespace(now=10.0)
    waits = WaitChecks(checks, world)
    ends = [waits.released(Asked(number, frozenset(), True)) for number in ("1", "1", "2", "1")]
    assert ends == [True, False, True, False]
