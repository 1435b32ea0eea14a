"""Mutants that are written by hand change code that is there."""

from pathlib import Path

import pytest

from .halves import mutants

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("half", ["control", "api", "node"])
def test_each_mutant_changes_one_place_of_a_program(half: str) -> None:
    for mutant in mutants(half).values():
        source = (ROOT / mutant.path).read_text()
        changed = mutant.apply(source)
        assert changed != source
        compile(changed, str(mutant.path), "exec")
