"""Defines this package's version, and finds the commit from which it was built."""

from __future__ import annotations

from functools import cache
from pathlib import Path

# The only declaration of the version. Between releases this is the next version, and the commit
# identifies a build.
__version__ = "0.1.0"

_SHOWN = 12


def format_version(version: str, commit: str) -> str:
    """Return a version with its commit, if known."""
    return f"{version} (commit {commit})" if commit else version


@cache
def own_commit() -> str:
    """Return the abbreviated commit, from the build or from git; empty if unknown."""
    noted = Path(__file__).with_name("commit")
    if noted.is_file():
        return noted.read_text(encoding="utf-8").strip()[:_SHOWN]
    return commit_of_checkout(Path(__file__).parents[1])[:_SHOWN]


def commit_of_checkout(root: Path) -> str:
    """Return the commit of a git checkout; empty if it isn't one, or git fails."""
    if not (root / ".git").exists():
        return ""
    import subprocess

    try:
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()
