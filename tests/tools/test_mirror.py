"""The check that tests mirror the package, on small trees."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from .mirror import missing

MODULE, TEST = "userspace_proxy/plan/plan.py", "tests/unit/plan/test_plan.py"
NODE_TEST = "tests/node/test_plan.py"
CLIENT_MODULE = "kubectl-userspace-proxy/userspace_proxy_kubectl/plan/plan.py"
KIT_MODULE = "pytest-userspace-proxy/userspace_proxy_testing/sandbox/node.py"
KIT_TEST = "tests/kit/sandbox/test_node.py"


def problems(
    root: Path,
    *files: str,
    elsewhere: Mapping[str, str] | None = None,
    untested: Mapping[str, str] | None = None,
) -> list[str]:
    """Return what is found in a checkout with these files."""
    for file in files:
        path = root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return list(missing(root, elsewhere or {}, untested or {}))


def test_modules_and_tests_that_mirror_each_other_are_no_problem(tmp_path: Path) -> None:
    assert problems(tmp_path, MODULE, TEST, "userspace_proxy/plan/__init__.py") == []
    assert problems(tmp_path, KIT_MODULE, KIT_TEST) == []


def test_a_module_of_the_client_has_its_test_beside_those_of_the_proxy(tmp_path: Path) -> None:
    assert problems(tmp_path, CLIENT_MODULE, TEST) == []
    assert problems(tmp_path, MODULE) == [f"{TEST} would be the test of 2 modules"]


@pytest.mark.parametrize(
    ("file", "problem"),
    [
        (MODULE, f"{MODULE} has no {TEST}"),
        (TEST, f"{TEST} has no module {MODULE} or {CLIENT_MODULE}"),
        (KIT_MODULE, f"{KIT_MODULE} has no {KIT_TEST}"),
        (KIT_TEST, f"{KIT_TEST} has no module {KIT_MODULE}"),
    ],
)
def test_one_without_the_other_is_a_problem(file: str, problem: str, tmp_path: Path) -> None:
    assert problems(tmp_path, file) == [problem]


def test_exceptions_are_no_problem(tmp_path: Path) -> None:
    assert problems(tmp_path, MODULE, NODE_TEST, elsewhere={MODULE: NODE_TEST}) == []
    assert problems(tmp_path, MODULE, NODE_TEST, untested={MODULE: "one call"}) == []


def test_exceptions_without_need_are_problems(tmp_path: Path) -> None:
    gone = "userspace_proxy/gone.py"
    exceptions = {MODULE: NODE_TEST, gone: NODE_TEST}
    assert problems(tmp_path, MODULE, TEST, NODE_TEST, elsewhere=exceptions) == [
        f"{MODULE} is listed as an exception, but has {TEST}",
        f"{gone} is listed as an exception, but doesn't exist",
    ]


def test_a_test_elsewhere_must_exist(tmp_path: Path) -> None:
    assert problems(tmp_path, MODULE, elsewhere={MODULE: NODE_TEST}) == [
        f"{MODULE} is listed as tested by {NODE_TEST}, which doesn't exist"
    ]
