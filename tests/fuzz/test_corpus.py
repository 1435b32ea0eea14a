"""Every file of the corpus, each by its target; ``make fuzz`` begins with these files."""

import random
import time
from pathlib import Path

import pytest

from .targets import TARGETS
from .targets.api import drawn_objects

CORPUS = Path(__file__).parent / "corpus"
CORPUS_BYTES_MAX = 200_000
INPUT_S = 2.0
"""Of CPU time; the slowest takes a tenth."""
FILES = sorted(path for path in CORPUS.rglob("*") if path.is_file())


@pytest.mark.parametrize("path", [pytest.param(p, id=f"{p.parent.name}-{p.name}") for p in FILES])
def test_a_file_of_the_corpus_keeps_its_targets_contract(path):
    began = time.process_time()
    TARGETS[path.parent.name](path.read_bytes())
    assert time.process_time() - began < INPUT_S


@pytest.mark.parametrize("target", TARGETS)
def test_cut_and_damaged_files_keep_the_contract(target):
    rng = random.Random(14)
    for path in sorted((CORPUS / target).iterdir()):
        data = bytearray(path.read_bytes())
        for _ in range(5):
            TARGETS[target](bytes(data[: rng.randrange(len(data) + 1)]))
            if data:
                data[rng.randrange(len(data))] = rng.randrange(256)
                TARGETS[target](bytes(data))


@pytest.mark.hypothesis
def test_drawn_objects_keep_the_contract():
    drawn_objects()


def test_the_corpus_is_small_and_has_files_for_every_target():
    assert {path.parent.name for path in FILES} == set(TARGETS)
    assert sum(path.stat().st_size for path in FILES) < CORPUS_BYTES_MAX
