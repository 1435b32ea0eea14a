"""Breaks the product on purpose, to show that the simulation notices.

A mutant is the product with one place of its source replaced, in memory, in a process of its own.
``python -m tests.simulation.mutants`` (``make simulate-mutants``) prints how many of the seeds of
a half find each. One that none of them finds gets more seeds; it fails if that is without effect.
"""

from __future__ import annotations

import argparse
import importlib.abc
import importlib.machinery
import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import CodeType, ModuleType

from .halves import PACKAGES, mutants
from .mutant_table import Mutant

ROOT = Path(__file__).resolve().parents[2]
_SEEDS = 500
_MOST_SEEDS = 5000
"""For a mutant that is found rarely."""


class _MutantLoader(importlib.machinery.SourceFileLoader):
    """Compiles one module from changed source."""

    def __init__(self, name: str, path: str, mutant: Mutant) -> None:
        super().__init__(name, path)
        self._mutant = mutant

    def get_code(self, fullname: str) -> CodeType:
        """Part of SourceLoader; no compiled file is read or written."""
        source = self._mutant.apply(Path(self.path).read_text())
        code: CodeType = compile(source, self.path, "exec", dont_inherit=True)
        return code


class _Finder(importlib.abc.MetaPathFinder):
    """Finds the changed module before others do."""

    def __init__(self, mutant: Mutant) -> None:
        self._mutant = mutant

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, _target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Part of MetaPathFinder."""
        if fullname != self._mutant.name or not path:
            return None
        file = str(Path(path[0]) / f"{self._mutant.module}.py")
        loader = _MutantLoader(fullname, file, self._mutant)
        return importlib.util.spec_from_file_location(fullname, file, loader=loader)


def install(mutant: Mutant) -> None:
    """Have this process import a mutant; before the module is imported."""
    assert mutant.name not in sys.modules, f"{mutant.name} has been imported"
    sys.meta_path.insert(0, _Finder(mutant))


def findings(half: str, name: str, first: int, seeds: int) -> list[tuple[str, str]]:
    """Return which seeds find a mutant, and what each has found."""
    arguments = [f"--half={half}", f"--mutant={name}", "--jobs=2"]
    arguments += [f"--first={first}", f"--seeds={seeds}"]
    found = subprocess.run(
        [sys.executable, "-m", "tests.simulation", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    if found.returncode not in (0, 1) or " seeds in " not in found.stdout:
        sys.stderr.write(found.stderr)
        raise SystemExit(f"{name}: the run ended with {found.returncode}")
    return re.findall(r"^seed (\d+): (.*)$", found.stdout, re.MULTILINE)


def main() -> int:
    """Print a line for each mutant; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--half", choices=PACKAGES, default="data")
    parser.add_argument("--seeds", type=int, default=_SEEDS)
    parser.add_argument("names", nargs="*", help="of mutants; by default all of the half")
    options = parser.parse_args()
    missed = []
    for name in options.names or mutants(options.half):
        found, tried = list[tuple[str, str]](), 0
        while not found and tried < _MOST_SEEDS:
            found = findings(options.half, name, tried, options.seeds)
            tried += options.seeds
        first = f"first {found[0][0]}: {found[0][1][:70]}" if found else ""
        sys.stdout.write(f"{len(found):4} of {tried:4}  {name:45} {first}\n")
        sys.stdout.flush()
        if not found:
            missed.append(name)
    if missed:
        sys.stdout.write(f"not found: {', '.join(missed)}\n")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
