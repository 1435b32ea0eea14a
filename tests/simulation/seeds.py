"""Selects the seeds that ``make test`` runs: some are fixed, others depend on the commit.

So each commit runs new seeds, which are the same on all machines.
"""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
_CODE = ("userspace_proxy", "tests/simulation")
# The range of the first seed that a commit selects; campaigns count from 0.
_LEAST, _MOST = 10_000_000, 90_000_000


class Share(NamedTuple):
    """The number of tested seeds of a half."""

    fixed: int
    drawn: int


TESTED: Mapping[str, Share] = {
    "data": Share(80, 30),
    "node": Share(40, 8),
}


def seeds_of(half: str, of: str) -> list[range]:
    """Return the tested seeds of a half: the fixed ones, then the ones drawn for a revision.

    Args:
        of: The revision under test.
    """
    fixed, drawn = TESTED[half]
    first = drawn_from(half, of)
    return [range(fixed), range(first, first + drawn)]


def drawn_from(half: str, of: str) -> int:
    """Return the first seed that a revision selects."""
    digest = hashlib.sha256(f"{half} {of}".encode()).digest()
    return _LEAST + int.from_bytes(digest[:8], "big") % (_MOST - _LEAST)


def revision(root: Path = ROOT) -> str:
    """Return the commit's hash; without a repository, a digest of the code."""
    found = subprocess.run(
        ["git", "rev-parse", "--verify", "HEAD"],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    return found.stdout.strip() if found.returncode == 0 else _digest(root, _CODE)


def _digest(root: Path, folders: Sequence[str]) -> str:
    digest = hashlib.sha256()
    for folder in folders:
        for path in sorted((root / folder).rglob("*.py")):
            digest.update(str(path.relative_to(root)).encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()
