"""Checks that git tracks no file that ``.gitignore`` lists, and no file that is too large.

Run it as ``python -m tests.tools.litter``. It prints one line per problem, and exits with status 1
if there are problems. Tests of the generators check that generated files are up to date.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BYTES_MAX = 500_000


def problems(root: Path) -> Iterator[str]:
    """Yield one line for each tracked file that shouldn't be tracked.

    Raises:
        subprocess.CalledProcessError: The folder isn't a git checkout.
    """
    for name in _files(root, "--cached", "--ignored", "--exclude-standard"):
        yield f"{name} is tracked, but .gitignore lists it (git rm --cached {name})"
    for name in _files(root, "--cached"):
        path = root / name
        size = path.stat().st_size if path.is_file() else 0
        if size > BYTES_MAX:
            yield f"{name} has {size:,} bytes; a tracked file has at most {BYTES_MAX:,}"


def _files(root: Path, *flags: str) -> list[str]:
    command = ["git", "ls-files", "-z", *flags]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    return [name for name in done.stdout.split("\0") if name]


def main() -> int:
    """Print all problems; return the exit status."""
    if not (ROOT / ".git").exists():
        sys.stdout.write("not a git checkout: no file is tracked\n")
        return 0
    found = list(problems(ROOT))
    sys.stdout.write("".join(f"{line}\n" for line in found))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
