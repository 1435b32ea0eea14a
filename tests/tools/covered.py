"""Checks coverage by unit tests: 95 % of all packages, 100 % of pure modules by their own test.

    tests/unit/plan/test_plan.py ──covers 100 % of──▶ userspace_proxy/plan/plan.py

Run it as ``python -m tests.tools.covered`` on the data that ``make coverage`` collects, in which
each line is recorded with the test module that ran it (tests/unit/conftest.py). It prints one line
per problem, and exits with status 1 if there are problems.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from coverage import Coverage

from .mirror import KIT, PACKAGE, ROOT, TESTS, expected_test

PURE = (
    *(PACKAGE / name for name in ("model", "cluster", "policy", "balance", "plan", "names")),
    *(PACKAGE / name for name in ("facts", "diagnosis", "shares.py", "turns.py")),
    *(PACKAGE / "sources" / "kubernetes" / name for name in ("kubeconfig.py", "proxies.py")),
    *(KIT / "faults" / name for name in ("fault_types.py", "toxics.py")),
)
"""Packages and modules without I/O and clocks."""
MIN_PERCENT = 95.0
AT_IMPORT = ""
"""The coverage context of lines that run while pytest imports test modules."""


@dataclass(frozen=True)
class Module:
    """The coverage of one file of the packages."""

    path: Path
    """The path relative to the checkout."""
    statements: frozenset[int]
    covered: frozenset[int]
    """Lines that any test covers."""
    by_own_test: frozenset[int]
    """Lines that run at import or in the module's own unit test."""


def problems(modules: Iterable[Module], *, min_percent: float = MIN_PERCENT) -> Iterator[str]:
    """Yield one line for each problem.

    Args:
        modules: All files of the packages.
        min_percent: The minimum percentage of all statements that the tests must cover.
    """
    statements = covered = 0
    for module in modules:
        statements += len(module.statements)
        covered += len(module.statements & module.covered)
        missing = module.statements - module.by_own_test
        if missing and any(map(module.path.is_relative_to, PURE)):
            yield f"{module.path}: {expected_test(module.path)} doesn't cover {ranges(missing)}"
    percent = 100 * covered / statements
    if percent < min_percent:
        yield f"all modules: {percent:.1f} % covered, at least {min_percent:g} %"


def ranges(lines: Collection[int]) -> str:
    """Return line numbers as text, with ranges for consecutive numbers: ``lines 3, 7-9``."""
    found: list[list[int]] = []
    for line in sorted(lines):
        if found and found[-1][-1] == line - 1:
            found[-1].append(line)
        else:
            found.append([line])
    texts = (f"{r[0]}-{r[-1]}" if len(r) > 1 else str(r[0]) for r in found)
    return f"line{'s' * (len(lines) > 1)} {', '.join(texts)}"


def read_modules(root: Path, measured: Coverage) -> Iterator[Module]:
    """Yield the files of the packages with their coverage.

    Args:
        root: The checkout.
        measured: Loaded data of a run from that folder.
    """
    data = measured.get_data()
    for file in sorted(file for package in TESTS for file in (root / package).rglob("*.py")):
        path = file.relative_to(root)
        _, statements, _, missing, _ = measured.analysis2(str(file))
        data.set_query_contexts([f"^{AT_IMPORT}$", f"^{expected_test(path).as_posix()}$"])
        own = data.lines(str(file)) or ()
        data.set_query_contexts(None)
        yield Module(
            path,
            statements=frozenset(statements),
            covered=frozenset(statements) - frozenset(missing),
            by_own_test=frozenset(own),
        )


def main() -> int:
    """Check the data of this checkout; return the exit status."""
    measured = Coverage()
    measured.load()
    found = list(problems(read_modules(ROOT, measured)))
    for problem in found:
        sys.stderr.write(f"{problem}\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
