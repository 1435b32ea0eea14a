"""Runs this commit's seeds, each half in a process with a fixed hash seed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from .drawn_mutants import changes, named
from .halves import PACKAGES

ROOT = Path(__file__).resolve().parents[2]
_BROKEN = {
    "data": ("dataplane.tcp", "and/or", "is_second = up.is_ended and down.is_ended"),
    "node": ("plan.plan", "and/or", "if old != new or _kinds(old) != _kinds(new):"),
}
"""For each half, a change that is found soon: its module, its kind, the original line."""
_TWICE = r"""
import sys
from tests.simulation.__main__ import main
main(), print("\f", end=""), main()
"""


def simulate(
    *arguments: str, program: Sequence[str] = ("-m", "tests.simulation")
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *program, *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": "0"},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("half", PACKAGES)
def test_each_simulation_finds_no_violation_in_its_tested_seeds(half: str) -> None:
    done = simulate(f"--half={half}", "--tested")
    sys.stdout.write(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("half", PACKAGES)
def test_a_seed_reproduces_the_same_run(half: str) -> None:
    done = simulate(f"--half={half}", "--seed=11", "--whole", program=["-c", _TWICE])
    first, second = done.stdout.split("\f")
    assert first == second
    assert len(first.splitlines()) > 10


@pytest.mark.parametrize("half", _BROKEN)
def test_a_mutant_is_detected_and_its_diagram_fits_on_a_screen(half: str) -> None:
    broken = f"--half={half}", f"--mutant={_label(*_BROKEN[half])}"
    found = simulate(*broken, "--seeds=20")
    assert found.returncode == 1
    seed = found.stdout.partition("seed ")[2].partition(":")[0]
    shown = simulate(*broken, f"--seed={seed}")
    assert shown.returncode == 1
    assert f"replay with: make simulate HALF={half} SEED={seed}" in shown.stdout
    assert len(shown.stdout.splitlines()) <= 60


def _label(module: str, kind: str, line: str) -> str:
    """Return the label of the only mutant that changes a line in this way."""
    source = named(f"{module}/0").path.read_text()
    lines = source.splitlines()
    (number,) = (
        number
        for number, change in enumerate(changes(source))
        if change.kind == kind and lines[change.line - 1].strip() == line
    )
    return f"{module}/{number}"
