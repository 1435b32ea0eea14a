"""Checks that tests mirror the packages: a test module for every module, and vice versa.

    userspace_proxy/plan/plan.py                                  ◀──▶ tests/unit/plan/test_plan.py
    kubectl-userspace-proxy/userspace_proxy_kubectl/nodes/rows.py ◀──▶ tests/unit/nodes/test_rows.py
    pytest-userspace-proxy/userspace_proxy_testing/places.py      ◀──▶ tests/kit/test_places.py

Run it as ``python -m tests.tools.mirror``. It prints one line per problem, and exits with status 1
if there are problems.

Rule 1: two packages whose tests share a folder have no modules with the same test.
Rule 2: a module whose tests can't be unit tests is listed in ELSEWHERE, with its test.
Rule 3: a module without a test of its own is listed in UNTESTED, with the reason.
Rule 4: an unneeded entry is also a problem.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = Path("userspace_proxy")
CLIENT = Path("kubectl-userspace-proxy/userspace_proxy_kubectl")
KIT = Path("pytest-userspace-proxy/userspace_proxy_testing")
TESTS = {PACKAGE: Path("tests/unit"), CLIENT: Path("tests/unit"), KIT: Path("tests/kit")}
"""The folder of each package's unit tests."""

ELSEWHERE: Mapping[str, str] = {}
"""Modules that are tested elsewhere, with the test."""

UNTESTED: Mapping[str, str] = {
    "userspace_proxy/__main__.py": "one call",
    "userspace_proxy/cli/__main__.py": "one call",
}
"""Modules without a test of their own, with the reason."""


def missing(root: Path, elsewhere: Mapping[str, str], untested: Mapping[str, str]) -> Iterator[str]:
    """Yield one line for each problem.

    Args:
        elsewhere: Like ELSEWHERE.
        untested: Like UNTESTED.
    """
    modules = {p.relative_to(root) for package in TESTS for p in (root / package).rglob("*.py")}
    modules = {module for module in modules if module.name != "__init__.py"}
    tests = {
        p.relative_to(root) for unit in TESTS.values() for p in (root / unit).rglob("test_*.py")
    }
    for module in sorted(modules):
        name, test = module.as_posix(), expected_test(module)
        listed = [table for table in (elsewhere, untested) if name in table]
        if test in tests:
            if listed:
                yield f"{name} is listed as an exception, but has {test.as_posix()}"
        elif not listed:
            yield f"{name} has no {test.as_posix()}"
    tested = Counter(map(expected_test, modules))
    for test in sorted(tests - tested.keys()):
        yield f"{test.as_posix()} has no module {' or '.join(modules_of(test))}"
    for test, count in sorted(tested.items()):
        if count > 1:
            yield f"{test.as_posix()} would be the test of {count} modules"
    for name in sorted((elsewhere.keys() | untested.keys()) - {m.as_posix() for m in modules}):
        yield f"{name} is listed as an exception, but doesn't exist"
    for name, where in sorted(elsewhere.items()):
        if not (root / where).is_file():
            yield f"{name} is listed as tested by {where}, which doesn't exist"


def expected_test(module: Path) -> Path:
    (package,) = (each for each in TESTS if module.is_relative_to(each))
    return TESTS[package] / module.relative_to(package).with_name(f"test_{module.name}")


def modules_of(test: Path) -> Iterator[str]:
    """Yield the paths of modules to which a test may belong."""
    for package, unit in TESTS.items():
        if test.is_relative_to(unit):
            module = test.relative_to(unit).with_name(test.name.removeprefix("test_"))
            yield (package / module).as_posix()


def main() -> int:
    """Check this checkout; return the exit status."""
    problems = list(missing(ROOT, ELSEWHERE, UNTESTED))
    for problem in problems:
        sys.stderr.write(f"{problem}\n")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
