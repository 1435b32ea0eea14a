"""Runs this commit's seeds, each part in a process without a random order of sets."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from .halves import PACKAGES

ROOT = Path(__file__).resolve().parents[2]
_PARTS = 4
_BROKEN = {
    "data": "lost-fin",
    "control": "orphans-end",
    "node": "change-of-endpoints-is-none",
    "api": "api-list-keeps-what-a-broken-list-named",
    "leases": "leases-answers-of-any-round",
}
"""A mutant that is found soon, by half."""


def simulate(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.simulation", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": "0"},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("part", range(_PARTS))
@pytest.mark.parametrize("half", PACKAGES)
def test_each_half_keeps_its_promises(half: str, part: int) -> None:
    done = simulate(f"--half={half}", f"--tested={part + 1}/{_PARTS}")
    sys.stdout.write(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("half", PACKAGES)
def test_a_seed_gives_the_same_run_again(half: str) -> None:
    first, second = (simulate(f"--half={half}", "--seed=11", "--whole") for _ in range(2))
    assert first.stdout == second.stdout
    assert len(first.stdout.splitlines()) > 10


@pytest.mark.parametrize(("half", "mutant"), _BROKEN.items(), ids=_BROKEN)
def test_a_broken_half_is_found_and_its_trace_fits_on_a_screen(half: str, mutant: str) -> None:
    broken = f"--half={half}", f"--mutant={mutant}"
    found = simulate(*broken, "--seeds=20")
    assert found.returncode == 1
    seed = found.stdout.partition("seed ")[2].partition(":")[0]
    shown = simulate(*broken, f"--seed={seed}")
    assert shown.returncode == 1
    assert f"replay with: make simulate HALF={half} SEED={seed}" in shown.stdout
    assert len(shown.stdout.splitlines()) <= 60
