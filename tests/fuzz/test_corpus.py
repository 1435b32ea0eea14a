"""Each file of the corpus satisfies its target's contract; ``make fuzz`` starts with them."""

import random
from pathlib import Path

import pytest

from .cost import stretched
from .targets import TARGETS
from .targets.api import drawn_objects

CORPUS = Path(__file__).parent / "corpus"
CORPUS_BYTES_MAX = 200_000
STRETCHED = 6
"""The number of stretched inputs of each file."""
FILES = sorted(path for path in CORPUS.rglob("*") if path.is_file())


@pytest.mark.parametrize("path", [pytest.param(p, id=f"{p.parent.name}-{p.name}") for p in FILES])
def test_a_corpus_file_satisfies_its_targets_contract(path):
    TARGETS[path.parent.name](path.read_bytes())


@pytest.mark.parametrize("target", TARGETS)
def test_truncated_and_corrupted_files_satisfy_the_contract(target):
    rng = random.Random(14)
    for path in sorted((CORPUS / target).iterdir()):
        data = bytearray(path.read_bytes())
        for _ in range(5):
            TARGETS[target](bytes(data[: rng.randrange(len(data) + 1)]))
            if data:
                data[rng.randrange(len(data))] = rng.randrange(256)
                TARGETS[target](bytes(data))


@pytest.mark.parametrize("target", TARGETS)
def test_parsing_time_is_at_most_linear_in_input_length(target):
    rng = random.Random(15)
    for path in sorted((CORPUS / target).iterdir()):
        data = path.read_bytes()
        for _ in range(STRETCHED):
            start, end = sorted(rng.randrange(len(data) + 1) for _ in range(2))
            TARGETS[target](stretched(data, start, end))


@pytest.mark.hypothesis
def test_generated_objects_satisfy_the_contract():
    drawn_objects()


def test_the_corpus_is_small_and_has_files_for_every_target():
    assert {path.parent.name for path in FILES} == set(TARGETS)
    assert sum(path.stat().st_size for path in FILES) < CORPUS_BYTES_MAX
