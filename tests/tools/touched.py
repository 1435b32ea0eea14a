"""Prints which existing files of the two packages a change edits, by package.

    $ python -m tests.tools.touched BASE
    userspace_proxy/facts: 1
      userspace_proxy/facts/figures.py
    userspace_proxy/status: 1
      userspace_proxy/status/templates/detail.html
    existing files: 2, packages: 2

The fewer they are, the better the code is divided for such a change (CONTRIBUTING.md). This is a
report: it fails only if there is no such commit.

Rule 1: the change is the difference of the working tree, committed or not, from the last commit
that it has in common with BASE. So commits that only BASE has don't count.
Rule 2: files of the packages count that exist at that commit and are edited, deleted or renamed,
the last by their old names. Added files don't count.
"""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from .form import ROOT, package_of, subpackage_of


def touched_files(root: Path, base: str) -> list[str]:
    """Return the existing files that a change edits.

    Args:
        base: A commit, in any form that git reads.

    Raises:
        subprocess.CalledProcessError: There is no such commit; git has printed that.
    """
    start = git(root, "merge-base", "HEAD", base).strip()
    # Without renames, a renamed file is a deleted one, by its old name, and an added one.
    names = git(root, "diff", "-z", "--name-only", "--no-renames", "--diff-filter=a", start, "--")
    return [name for name in names.split("\0") if package_of(name)]


def report(files: Sequence[str]) -> Iterator[str]:
    """Yield the lines of the report; they are sorted."""
    packages = Counter(map(subpackage_of, files))
    for package, count in sorted(packages.items()):
        yield f"{package}: {count}"
        yield from (f"  {name}" for name in sorted(files) if subpackage_of(name) == package)
    yield f"existing files: {len(files)}, packages: {len(packages)}"


def git(root: Path, *arguments: str) -> str:
    """Return what git prints in a checkout."""
    command = ["git", *arguments]
    return subprocess.run(command, cwd=root, stdout=subprocess.PIPE, text=True, check=True).stdout


def main(arguments: Sequence[str]) -> int:
    """Print the report; return the exit status."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m tests.tools.touched COMMIT\n")
        return 2
    try:
        files = touched_files(ROOT, arguments[0])
    except subprocess.CalledProcessError:
        return 1
    sys.stdout.write("".join(f"{line}\n" for line in report(files)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
