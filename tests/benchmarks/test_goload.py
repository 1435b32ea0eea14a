"""goload's own tests, in Go."""

import os
import subprocess
from pathlib import Path

import pytest

import benchmarks
from tests.cluster.build import find_go

SOURCE = Path(benchmarks.__file__).parent / "goload"
DEADLINE_S = 300

# Go compiles its library the first time.
pytestmark = pytest.mark.long


@pytest.mark.parametrize("words", [("vet",), ("test", "-count=1")])
def test_go_vet_and_tests_find_no_problems(words: tuple[str, ...]) -> None:
    done = subprocess.run(
        [find_go(), *words, "."],
        cwd=SOURCE,
        env={**os.environ, "GOWORK": "off", "GOTOOLCHAIN": "local"},
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )
    assert done.returncode == 0, done.stdout + done.stderr
