"""Runs the seeds that never change, each part in a process without a random order of sets."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SEEDS = {"data": 500, "control": 200}
"""By half."""
_PARTS = 4


def simulate(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.simulation", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": "0"},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("part", range(_PARTS))
@pytest.mark.parametrize("half", SEEDS)
def test_each_half_keeps_its_promises(half: str, part: int) -> None:
    count = SEEDS[half] // _PARTS
    done = simulate(f"--half={half}", f"--first={part * count}", f"--seeds={count}")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("half", SEEDS)
def test_a_seed_gives_the_same_run_again(half: str) -> None:
    first, second = (simulate(f"--half={half}", "--seed=11", "--whole") for _ in range(2))
    assert first.stdout == second.stdout
    assert len(first.stdout.splitlines()) > 10


@pytest.mark.parametrize(
    ("half", "mutant"), [("data", "lost-fin"), ("control", "orphans-end")], ids=SEEDS
)
def test_a_broken_half_is_found_and_its_trace_fits_on_a_screen(half: str, mutant: str) -> None:
    broken = f"--half={half}", f"--mutant={mutant}"
    found = simulate(*broken, "--seeds=20")
    assert found.returncode == 1
    seed = found.stdout.partition("seed ")[2].partition(":")[0]
    shown = simulate(*broken, f"--seed={seed}")
    assert shown.returncode == 1
    assert f"replay with: make simulate HALF={half} SEED={seed}" in shown.stdout
    assert len(shown.stdout.splitlines()) <= 60
