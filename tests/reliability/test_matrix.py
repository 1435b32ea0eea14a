"""Each row of the matrix as a test; ``make faults`` runs the same rows and writes the page."""

from __future__ import annotations

from pathlib import Path

import pytest

from .matrix import ROWS
from .measuring import measure
from .row import Row

pytestmark = pytest.mark.netns


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_fault_fails_at_most_the_documented_requests(row: Row, tmp_path: Path) -> None:
    assert measure(row, tmp_path).problems() == []


def test_row_names_are_unique() -> None:
    names = [row.name for row in ROWS]
    assert sorted(set(names)) == sorted(names)
