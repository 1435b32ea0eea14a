"""Tests of the mutants that are written by hand."""

from __future__ import annotations

import pytest

from .halves import mutants
from .seeds import ROOT


@pytest.mark.parametrize("half", ["api", "table", "node"])
def test_each_mutant_changes_the_module_that_there_is(half: str) -> None:
    for mutant in mutants(half).values():
        path = ROOT / f"{mutant.name.replace('.', '/')}.py"
        source = path.read_text()
        assert mutant.apply(source) != source
