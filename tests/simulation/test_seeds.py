"""Tests of the seeds that are run for a commit."""

from __future__ import annotations

from pathlib import Path

import pytest

from .halves import PACKAGES
from .seeds import TESTED, drawn_from, revision, seeds_of


@pytest.mark.parametrize("half", PACKAGES)
def test_the_parts_are_all_seeds_of_a_half(half: str) -> None:
    parts = [seed for part in range(4) for each in seeds_of(half, "one", part, 4) for seed in each]
    assert sorted(parts) == [seed for each in seeds_of(half, "one") for seed in each]
    assert len(parts) == sum(TESTED[half])


def test_each_commit_has_seeds_of_its_own_besides_those_that_all_have() -> None:
    fixed, drawn = seeds_of("data", "one")
    also_fixed, others = seeds_of("data", "another")
    assert fixed == also_fixed
    assert not set(drawn) & {*fixed, *others}


def test_a_commit_has_the_same_seeds_everywhere() -> None:
    assert drawn_from("data", "one") == 13236841
    assert drawn_from("node", "one") == 33941229


def test_code_without_a_repository_decides_by_what_it_contains(tmp_path: Path) -> None:
    (tmp_path / "userspace_proxy").mkdir()
    module = tmp_path / "userspace_proxy" / "one.py"
    module.write_text("A = 1\n")
    before = revision(tmp_path)
    assert revision(tmp_path) == before
    module.write_text("A = 2\n")
    assert revision(tmp_path) != before
