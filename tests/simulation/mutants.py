"""Breaks the product on purpose, to show that the simulation notices.

A mutant is the product with one place of its source replaced, in memory, in a process of its own.
``python -m tests.simulation.mutants`` (``make simulate-mutants``) runs seeds of a half with each
mutant of a table, until one finds it, and prints the share found and by which oracle; it fails if
one isn't found. ``--drawn=60`` draws that many from the code instead: a measure that doesn't fail.
"""

from __future__ import annotations

import argparse
import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import re
import resource
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import CodeType, ModuleType
from typing import NamedTuple

from .drawn_mutants import DrawnMutant, draw, named
from .equivalent_mutants import EQUIVALENT
from .halves import PACKAGES, mutants
from .mutant_table import Mutant

ROOT = Path(__file__).resolve().parents[2]
_SEEDS = 5000
_DRAWN_SEEDS = 300
_TRACED_SEEDS = 60
"""Those whose lines are changed."""
_MOST_S = 1800.0
_MOST_BYTES = 3 << 30
AnyMutant = Mutant | DrawnMutant


class _MutantLoader(importlib.machinery.SourceFileLoader):
    """Compiles one module from changed source."""

    def __init__(self, name: str, path: str, mutant: AnyMutant) -> None:
        super().__init__(name, path)
        self._mutant = mutant

    def get_code(self, fullname: str) -> CodeType:
        """Part of SourceLoader; no compiled file is read or written."""
        source = self._mutant.apply(Path(self.path).read_text())
        code: CodeType = compile(source, self.path, "exec", dont_inherit=True)
        return code


class _Finder(importlib.abc.MetaPathFinder):
    """Finds the changed module before others do."""

    def __init__(self, mutant: AnyMutant) -> None:
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


def install(mutant: AnyMutant) -> None:
    """Have this process import a mutant; before the module is imported."""
    assert mutant.name not in sys.modules, f"{mutant.name} has been imported"
    # One that makes objects without end.
    resource.setrlimit(resource.RLIMIT_AS, (_MOST_BYTES, _MOST_BYTES))
    sys.meta_path.insert(0, _Finder(mutant))


class Finding(NamedTuple):
    """Which seed finds a mutant first, and what it reports."""

    seed: int
    text: str

    @property
    def oracle(self) -> str:
        return re.sub(r"\d+", "n", self.text.partition(": ")[0])[:40]


def finding(half: str, seeds: int, name: str) -> Finding | None:
    """Return what finds a mutant of the table, or a drawn one by its label; None: nothing does."""
    arguments = [f"--half={half}", f"--mutant={name}", f"--seeds={seeds}", "--until-found"]
    found = subprocess.run(
        [sys.executable, "-m", "tests.simulation", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": "0"},
        capture_output=True,
        text=True,
        check=False,
        timeout=_MOST_S,
    )
    first = re.search(r"^seed (\d+): (.*)$", found.stdout, re.MULTILINE)
    if first is not None:
        return Finding(int(first[1]), first[2])
    if " seeds in " not in found.stdout:
        # It can't even be imported, or the process ends.
        return Finding(-1, f"no run: {found.stderr.strip().rpartition(chr(10))[2]}")
    return None


def running_lines(half: str, seeds: int) -> Mapping[str, Sequence[int]]:
    """Return the lines of each module that some seeds of a half run."""
    ran = subprocess.run(
        [sys.executable, "-m", "tests.simulation.running_lines", half, str(seeds)],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": "0"},
        stdout=subprocess.PIPE,
        check=True,
    )
    lines: Mapping[str, Sequence[int]] = json.loads(ran.stdout)
    return lines


def main() -> int:
    """Print a line for each mutant, and sums; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--half", choices=PACKAGES, default="data")
    parser.add_argument("--seeds", type=int, default=0, help="at most, for each mutant")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--drawn", type=int, default=0, help="draw that many from the code")
    parser.add_argument("--draw", type=int, default=0, help="the seed by which they are drawn")
    parser.add_argument("--package", default="", help="draw from modules that begin with this")
    parser.add_argument("names", nargs="*", help="of mutants; by default all of the half's table")
    options = parser.parse_args()
    half: str = options.half
    rows: dict[str, str]
    if options.drawn:
        lines = running_lines(half, _TRACED_SEEDS)
        drawn = draw(lines, options.draw, options.drawn, options.package)
        rows = {each.label: each.change.kind for each in drawn if not _is_equivalent(each)}
        known = [each.label for each in drawn if _is_equivalent(each)]
        if known:
            sys.stdout.write(f"without effect, see equivalent_mutants: {', '.join(known)}\n")
    else:
        rows = dict.fromkeys(options.names or mutants(half), "written")
        for name in options.names or mutants(half):
            # What it changes may have been rewritten: no seed would find that it isn't there.
            written = mutants(half)[name]
            written.apply((ROOT / written.path).read_text())
    seeds = options.seeds or (_DRAWN_SEEDS if options.drawn else _SEEDS)
    with ThreadPoolExecutor(options.jobs) as pool:
        found = pool.map(partial(finding, half, seeds), rows)
        missed = _print(half, rows, dict(_shown(rows, found)), seeds)
    return 1 if missed and not options.drawn else 0


def _is_equivalent(mutant: DrawnMutant) -> bool:
    return (mutant.name.partition(".")[2], *mutant.difference()) in EQUIVALENT


def _shown(
    rows: Mapping[str, str], found: Iterator[Finding | None]
) -> Iterator[tuple[str, Finding | None]]:
    for name, first in zip(rows, found, strict=True):
        text = f"{first.seed:5}  {first.text[:70]}" if first else "    –"
        sys.stdout.write(f"{name:45} {rows[name]:12} {text}\n")
        sys.stdout.flush()
        yield name, first


def _print(
    half: str, rows: Mapping[str, str], found: Mapping[str, Finding | None], seeds: int
) -> list[str]:
    """Print sums; return the mutants that weren't found."""
    missed = [name for name, first in found.items() if first is None]
    out = sys.stdout.write
    count = len(rows) - len(missed)
    out(f"\n{half}: {count} of {len(rows)} found within {seeds} seeds")
    out(f" ({100 * count / max(1, len(rows)):.0f} %)\n")
    for kind in sorted(set(rows.values())):
        of_kind = [name for name in rows if rows[name] == kind]
        out(f"  {kind:16} {sum(found[name] is not None for name in of_kind)} of {len(of_kind)}\n")
    oracles = Counter(first.oracle for first in found.values() if first)
    for oracle, times in oracles.most_common():
        out(f"  by {oracle}: {times}\n")
    if missed:
        out("not found:\n")
    for name in missed:
        out(f"  {_described(name)}\n")
    return missed


def _described(name: str) -> str:
    if "/" not in name:
        return name
    mutant = named(name)
    old, new = mutant.difference()
    path = mutant.path.relative_to(ROOT)
    return f"{path}:{mutant.change.line} ({mutant.change.kind}, {name})\n    - {old}\n    + {new}"


if __name__ == "__main__":
    sys.exit(main())
