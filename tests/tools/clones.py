"""Clones this repository's last commit: what a tag would have, without what lies about here."""

from __future__ import annotations

import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]


class CloneError(Exception):
    """The clone wouldn't be what a tag would have; the message contains the cause."""


def clone(target: Path, root: Path = ROOT) -> None:
    """Clone the last commit into a folder that doesn't exist yet.

    Raises:
        CloneError: A file was changed since then.
    """
    if changed := git(root, "status", "--porcelain", "--untracked-files=no"):
        raise CloneError(f"cannot clone {root}: uncommitted changes (commit them):\n{changed}")
    git(root, "clone", "--quiet", "--no-hardlinks", str(root), str(target))


def committed_at(root: Path = ROOT) -> int:
    """Return the time of the last commit, in seconds since 1970: SOURCE_DATE_EPOCH."""
    return int(git(root, "log", "-1", "--format=%ct"))


def git(root: Path, *words: str) -> str:
    # The repository is another user's where tests run in a root filesystem. A log of references
    # names the user, for which git asks for this machine's name in DNS.
    options = (f"safe.directory={root}", "core.logAllRefUpdates=false")
    command = ["git", *(word for option in options for word in ("-c", option))]
    command += ["-C", str(root), *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
