"""The check of what unit tests cover."""

from __future__ import annotations

from pathlib import Path

import pytest
from coverage import Coverage, CoverageData

from .covered import AT_IMPORT, Module, problems, read_modules

PURE = Path("userspace_proxy/plan/plan.py")
TOXICS = Path("pytest-userspace-proxy/userspace_proxy_testing/faults/toxics.py")
SHELL = Path("userspace_proxy/agent/run.py")
LINES = frozenset(range(1, 101))


def module(path: Path, *, covered: int, by_own_test: int = 0) -> Module:
    """Return a module with 100 statements, of which the first few are covered."""
    first = frozenset(range(1, covered + 1))
    return Module(path, LINES, first, frozenset(range(1, by_own_test + 1)))


@pytest.mark.parametrize(("percent", "expected"), [(95, []), (94, ["94.5 % covered"])])
def test_tests_must_cover_95_percent_of_the_package(percent: int, expected: list[str]) -> None:
    modules = [module(SHELL, covered=percent), module(SHELL, covered=95)]
    found = [problem.partition(": ")[2].partition(",")[0] for problem in problems(modules)]
    assert found == expected


@pytest.mark.parametrize(
    ("pure", "test"),
    [(PURE, "tests/unit/plan/test_plan.py"), (TOXICS, "tests/kit/faults/test_toxics.py")],
)
def test_a_pure_module_must_be_covered_by_its_own_test_alone(pure: Path, test: str) -> None:
    modules = [module(pure, covered=100, by_own_test=98), module(SHELL, covered=100)]
    assert list(problems(modules)) == [f"{pure}: {test} doesn't cover lines 99-100"]


def test_what_runs_at_import_counts_as_covered_by_the_own_test(tmp_path: Path) -> None:
    file = tmp_path / PURE
    file.parent.mkdir(parents=True)
    file.write_text("def f(x):\n    if x:\n        return 1\n    return 2\n")
    data = CoverageData(str(tmp_path / ".coverage"))
    for context, lines in (
        (AT_IMPORT, {1}),
        ("tests/unit/plan/test_plan.py", {2, 3}),
        ("tests/unit/agent/test_run.py", {2, 4}),
    ):
        data.set_context(context)
        data.add_lines({str(file): lines})
    data.write()
    measured = Coverage(data_file=data.data_filename(), config_file=False)
    measured.load()
    (found,) = read_modules(tmp_path, measured)
    assert found == Module(
        PURE, frozenset({1, 2, 3, 4}), frozenset({1, 2, 3, 4}), frozenset({1, 2, 3})
    )
