"""Builds the distributions of this repository, for tests of what they contain."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
KIT = ROOT / "pytest-userspace-proxy"


def build(target: str, folder: Path, root: Path = ROOT) -> Path:
    """Return the only file that the build backend writes to a folder.

    Args:
        target: ``wheel`` or ``sdist``.
        root: The folder with the distribution's pyproject.toml.
    """
    command = [sys.executable, "-m", "hatchling", "build", f"--target={target}"]
    run([*command, f"--directory={folder}"], root)
    (built,) = folder.iterdir()
    return built


def run(command: list[str], folder: Path = ROOT) -> str:
    done = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout
