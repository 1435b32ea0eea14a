"""Runs the seeds that never change, each part in a process without a random order of sets."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SEEDS = 500
_PARTS = 4


def simulate(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the simulation with arguments."""
    return subprocess.run(
        [sys.executable, "-m", "tests.simulation", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": "0"},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("part", range(_PARTS))
def test_the_data_plane_keeps_its_promises(part: int) -> None:
    count = SEEDS // _PARTS
    done = simulate(f"--first={part * count}", f"--seeds={count}")
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_seed_gives_the_same_run_again() -> None:
    first, second = (simulate("--seed=11", "--whole") for _ in range(2))
    assert first.stdout == second.stdout
    assert "client" in first.stdout


def test_a_broken_data_plane_is_found_and_its_trace_fits_on_a_screen() -> None:
    found = simulate("--mutant=lost-fin", "--seeds=20")
    assert found.returncode == 1
    seed = found.stdout.partition("seed ")[2].partition(":")[0]
    shown = simulate("--mutant=lost-fin", f"--seed={seed}")
    assert shown.returncode == 1
    assert f"replay with: make simulate SEED={seed}" in shown.stdout
    assert len(shown.stdout.splitlines()) <= 60
