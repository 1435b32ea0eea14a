"""Mutation tests: changes the product in one place at a time, and records which tests fail.

    changes in lines that seeds run ──▶ unit tests of the module ──▶ seeds ──▶ found by neither
                                              └─▶ found               └─▶ found

A mutant is the product with one place of its source changed, in the memory of a separate process.
``python -m tests.simulation.mutants --out=FILE`` (``make simulate-mutants``) draws some for each
half. The seeds of the half run only if the unit tests of the module pass. A run with the same file
continues where the last one ended.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, NamedTuple

from tests.tools.mirror import expected_test

from .drawn_mutants import PRODUCT, DrawnMutant, draw, named
from .equivalent_mutants import EQUIVALENT
from .halves import PACKAGES

ROOT = Path(__file__).resolve().parents[2]
_TRACED_SEEDS = 60
"""The number of seeds whose executed lines may be changed."""
_MOST_UNIT_S = 120.0
_MOST_SEEDS_S = 1800.0
_MOST_BYTES = 3 << 30
_UNIT_TESTS = "import sys, tests.simulation.mutants as m; sys.exit(m.unit_tests(*sys.argv[1:]))"
Record = dict[str, Any]
"""The result of one mutant: a line of JSON in the file."""


class _MutantLoader(importlib.machinery.SourceFileLoader):
    """Compiles one module from changed source."""

    def __init__(self, name: str, path: str, mutant: DrawnMutant) -> None:
        super().__init__(name, path)
        self._mutant = mutant

    def get_code(self, fullname: str) -> CodeType:
        """Compile the changed source; no cached bytecode is read or written."""
        source = self._mutant.apply(Path(self.path).read_text())
        code: CodeType = compile(source, self.path, "exec", dont_inherit=True)
        return code


class _Finder(importlib.abc.MetaPathFinder):
    """Finds the changed module before the other finders do."""

    def __init__(self, mutant: DrawnMutant) -> None:
        self._mutant = mutant

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, _target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != self._mutant.name or not path:
            return None
        file = str(Path(path[0]) / f"{self._mutant.module}.py")
        loader = _MutantLoader(fullname, file, self._mutant)
        return importlib.util.spec_from_file_location(fullname, file, loader=loader)


def install(mutant: DrawnMutant) -> None:
    """Limit this process's memory, and make its later import of the module load a mutant."""
    assert mutant.name not in sys.modules, f"{mutant.name} has been imported"
    # The memory is limited because a mutant may allocate endlessly.
    resource.setrlimit(resource.RLIMIT_AS, (_MOST_BYTES, _MOST_BYTES))
    sys.meta_path.insert(0, _Finder(mutant))


def unit_tests(label: str, path: str) -> int:
    """Run a test module on the mutant with a label; return pytest's exit status."""
    import pytest

    install(named(label))
    return pytest.main([path, "-x", "-q", "-p", "no:cacheprovider", "-m", "not long"])


class _Ended(NamedTuple):
    """A process that has exited."""

    status: int | None
    """The exit status; None if it timed out."""
    output: str
    cpu_s: float

    def found(self, pattern: str) -> str:
        """Return the pattern's first group in the output, else the last line, or a timeout note."""
        if self.status is None:
            return "takes too long"
        named = re.search(pattern, self.output, re.MULTILINE)
        return named[1] if named else self.output.strip().rpartition("\n")[2]


def _run(most_s: float, *arguments: str) -> _Ended:
    """Run a Python program, then kill its remaining processes."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    # The output goes to a file, because remaining processes could hold a pipe open.
    with tempfile.TemporaryFile("w+", errors="replace") as output:
        process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": "0"},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        status = None
        with contextlib.suppress(subprocess.TimeoutExpired):
            status = process.wait(most_s)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        output.seek(0)
        text = output.read()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return _Ended(status, text, sum(after[:2]) - sum(before[:2]))


def judge(half: str, label: str, seeds: int) -> Record:
    """Return a record of the test that detects a mutant, and the CPU time of the tests."""
    mutant = named(label)
    old, new = mutant.difference()
    path = mutant.path.relative_to(ROOT)
    place = f"{path}:{mutant.change.line}"
    record: Record = {"half": half, "label": label, "place": place, "kind": mutant.change.kind}
    record |= {"old": old, "new": new, "by": "", "what": "", "unit_s": 0.0, "seeds_s": 0.0}
    test = expected_test(path)
    if (ROOT / test).exists():
        unit = _run(_MOST_UNIT_S, "-c", _UNIT_TESTS, label, str(test))
        record["unit_s"] = unit.cpu_s
        if unit.status != 0:
            what = unit.found(r"^(?:FAILED|ERROR) (\S+)")
            return {**record, "by": "unit", "what": what}
    arguments = [f"--half={half}", f"--mutant={label}", f"--seeds={seeds}", "--until-found"]
    ran = _run(_MOST_SEEDS_S, "-m", "tests.simulation", *arguments)
    record["seeds_s"] = ran.cpu_s
    if ran.status != 0:
        # A mutant may also exit the process, or fail to import.
        return {**record, "by": "seeds", "what": ran.found(r"^(seed \d+: .*)$")}
    return record


def _drawn(halves: Sequence[str], seed: int, count: int) -> Iterator[tuple[str, DrawnMutant]]:
    """Draw the same number of distinct mutants for each half."""
    seen: set[DrawnMutant] = set()
    each_has = count // len(halves)
    for half in halves:
        traced = ["tests.simulation.running_lines", half, str(_TRACED_SEEDS)]
        ran = _run(_MOST_SEEDS_S, "-m", *traced)
        assert ran.status == 0, ran.output
        some = draw(json.loads(ran.output), seed, each_has + len(seen) + len(EQUIVALENT))
        fresh = [each for each in some if each not in seen and not _is_equivalent(each)]
        seen.update(fresh[:each_has])
        yield from ((half, each) for each in fresh[:each_has])


def _is_equivalent(mutant: DrawnMutant) -> bool:
    return (mutant.name.partition(".")[2], *mutant.difference()) in EQUIVALENT


def summary(records: Sequence[Record]) -> Iterator[str]:
    """Yield a row per package, then the mutants that no test detected."""
    yield f"{'':16}  drawn  unit tests  of the rest: seeds  neither  CPU s of both"
    by_package: dict[str, list[Record]] = {}
    for record in records:
        package = record["label"].partition("/")[0].rpartition(".")[0].partition(".")[0]
        by_package.setdefault(package or PRODUCT, []).append(record)
    for package, some in [*sorted(by_package.items()), ("all", records)]:
        unit, seeds, neither = (
            sum(each["by"] == by for each in some) for by in ("unit", "seeds", "")
        )
        unit_s, seeds_s = (sum(each[key] for each in some) for key in ("unit_s", "seeds_s"))
        row = f"{len(some):7}{unit:12}{seeds:20}{neither:9}{unit_s:9.0f}{seeds_s:7.0f}"
        yield f"{package:16}{row}"
    for record in records:
        if not record["by"]:
            yield f"{record['place']} ({record['kind']}, {record['label']})"
            yield f"    - {record['old']}"
            yield f"    + {record['new']}"


def main() -> None:
    """Print a line per mutant, and the summary."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--half", choices=PACKAGES, help="by default each of them")
    parser.add_argument("--count", type=int, default=300, help="how many mutants, of all halves")
    parser.add_argument("--draw", type=int, default=0, help="the seed by which they are drawn")
    parser.add_argument("--seeds", type=int, default=120, help="at most, for each mutant")
    parser.add_argument("--out", type=Path, required=True, help="where records are appended")
    options = parser.parse_args()
    halves = [options.half] if options.half else [*PACKAGES]
    with options.out.open("a+") as out:
        out.seek(0)
        records = [json.loads(line) for line in out]
        judged = {(each["label"], each["old"], each["new"]) for each in records}
        for half, mutant in _drawn(halves, options.draw, options.count):
            if (mutant.label, *mutant.difference()) in judged:
                continue
            record = judge(half, mutant.label, options.seeds)
            records.append(record)
            out.write(f"{json.dumps(record)}\n")
            out.flush()
            by = record["by"] or "neither"
            sys.stdout.write(f"{half:8}{mutant.label:45} {by:8} {record['what'][:70]}\n")
            sys.stdout.flush()
    sys.stdout.writelines(f"{line}\n" for line in summary(records))


if __name__ == "__main__":
    main()
