"""Checks the form of changed files, and runs their unit tests: a minute at most.

    $ python -m tests.tools.quick                            what isn't committed
    $ python -m tests.tools.quick userspace_proxy/balance    these files, and those below a folder

    userspace_proxy/plan/plan.py ──▶ tests/unit/plan/test_plan.py, ruff, mypy, form, mirror, layers

It stops at the first failure, with status 1. A commit requires ``make test``, because other tests
may also use a module.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from .mirror import ROOT, TESTS, expected_test

UNIT = (*TESTS.values(), Path("tests/tools"))
"""Folders of tests that need nothing beyond this environment."""


def changed_files(root: Path, places: Sequence[str]) -> list[Path]:
    """Return files with uncommitted changes, or all files at some paths, sorted.

    Raises:
        subprocess.CalledProcessError: A path doesn't exist; git has printed that.
    """
    added = ("ls-files", "-z", "--others", "--exclude-standard")
    if places:
        found = git(root, *added, "--cached", "--error-unmatch", "--", *places)
    else:
        found = git(root, "diff", "-z", "--name-only", "--no-renames", "HEAD", "--")
        found += git(root, *added)
    names = {name for name in found.split("\0") if name}
    return sorted(path for path in map(Path, names) if (root / path).is_file())


def git(root: Path, *arguments: str) -> str:
    """Return git's output in a checkout."""
    command = ["git", *arguments]
    return subprocess.run(command, cwd=root, stdout=subprocess.PIPE, text=True, check=True).stdout


def own_tests(root: Path, files: Sequence[Path]) -> list[Path]:
    """Return the unit tests of files, sorted; a file may be a test itself."""
    found = set()
    for path in files:
        if path.suffix != ".py":
            continue
        if any(map(path.is_relative_to, TESTS)):
            found.add(expected_test(path))
        elif any(map(path.is_relative_to, UNIT)):
            found.add(path.with_name(f"test_{path.name.removeprefix('test_')}"))
    return sorted(path for path in found if (root / path).is_file())


def commands(files: Sequence[Path], tests: Sequence[Path]) -> Iterator[list[str]]:
    """Yield the command of each check, the fastest check first."""
    python, layers = sys.executable, Path(sys.executable).with_name("lint-imports")
    modules = [str(path) for path in files if path.suffix == ".py"]
    if modules:
        yield [python, "-m", "ruff", "format", "--check", *modules]
        yield [python, "-m", "ruff", "check", *modules]
        yield [python, "-m", "tests.tools.mirror"]
        yield [python, "-m", "tests.tools.form"]
        yield [str(layers)]
        yield [python, "-m", "mypy"]
    if tests:
        yield [python, "-m", "pytest", "-q", "-m", "not long", "-n", "2", *map(str, tests)]


def main(places: Sequence[str]) -> int:
    """Run the checks; return the exit status."""
    try:
        files = changed_files(ROOT, places)
    except subprocess.CalledProcessError:
        return 1
    tests = own_tests(ROOT, files)
    sys.stdout.write(f"{len(files)} files, {len(tests)} modules of tests\n")
    for command in commands(files, tests):
        sys.stdout.write(f"{' '.join(command)[:100]}\n")
        sys.stdout.flush()
        done = subprocess.run(
            command,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode:
            sys.stdout.write(done.stdout)
            return 1
    sys.stdout.write("all of it passes\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
