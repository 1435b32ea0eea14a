"""Clones the last commit of this repository, as for a release, and builds its distributions."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
CLIENT = ROOT / "kubectl-userspace-proxy"
KIT = ROOT / "pytest-userspace-proxy"


class CloneError(Exception):
    """The clone would differ from a tag's clone; the message contains the cause."""


def clone(target: Path, root: Path = ROOT) -> None:
    """Clone the last commit into a folder that doesn't exist yet.

    Raises:
        CloneError: A file has been changed since that commit.
    """
    if changed := git(root, "status", "--porcelain", "--untracked-files=no"):
        raise CloneError(f"cannot clone {root}: uncommitted changes (commit them):\n{changed}")
    git(root, "clone", "--quiet", "--no-hardlinks", str(root), str(target))


def committed_at(root: Path = ROOT) -> int:
    """Return the time of the last commit, in seconds since 1970: SOURCE_DATE_EPOCH."""
    return int(git(root, "log", "-1", "--format=%ct"))


def git(root: Path, *words: str) -> str:
    # In a root filesystem, another user owns the repository. A reflog would contain the user's
    # name, for which git would resolve this machine's name by DNS.
    options = (f"safe.directory={root}", "core.logAllRefUpdates=false")
    command = ["git", *(word for option in options for word in ("-c", option))]
    command += ["-C", str(root), *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def build(target: str, folder: Path, root: Path = ROOT) -> Path:
    """Build a distribution into an empty folder; return its file.

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
