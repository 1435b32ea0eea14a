"""Mutants that are written by hand change code that is there."""

import pytest

from .halves import PACKAGES, mutants
from .seeds import ROOT


@pytest.mark.parametrize("half", PACKAGES)
def test_each_mutant_changes_one_place_of_a_program(half: str) -> None:
    for mutant in mutants(half).values():
        source = (ROOT / mutant.path).read_text()
        changed = mutant.apply(source)
        assert changed != source
        compile(changed, str(mutant.path), "exec")
