"""The check that tests mirror the package, on small trees."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from .mirror import missing

MODULE, TEST = "userspace_proxy/plan/plan.py", "tests/unit/plan/test_plan.py"
NODE_TEST, GONE = "tests/node/test_plan.py", "userspace_proxy/gone.py"
CLIENT_MODULE = "kubectl-userspace-proxy/userspace_proxy_kubectl/plan/plan.py"
KIT_MODULE = "pytest-userspace-proxy/userspace_proxy_testing/sandbox/node.py"
KIT_TEST = "tests/kit/sandbox/test_node.py"


@pytest.mark.parametrize(
    ("files", "elsewhere", "problems"),
    [
        ([MODULE, TEST, KIT_MODULE, KIT_TEST, "userspace_proxy/plan/__init__.py"], [], []),
        ([CLIENT_MODULE, TEST], [], []),
        ([CLIENT_MODULE, MODULE, TEST], [], [f"{TEST} would be the test of 2 modules"]),
        ([MODULE], [], [f"{MODULE} has no {TEST}"]),
        ([KIT_TEST], [], [f"{KIT_TEST} has no module {KIT_MODULE}"]),
        ([MODULE, NODE_TEST], [MODULE], []),
        (
            [MODULE, TEST, NODE_TEST],
            [MODULE, GONE],
            [
                f"{MODULE} is listed as an exception, but has {TEST}",
                f"{GONE} is listed as an exception, but doesn't exist",
            ],
        ),
        ([MODULE], [MODULE], [f"{MODULE} is listed as tested by {NODE_TEST}, which doesn't exist"]),
    ],
)
def test_one_without_the_other_and_an_exception_without_need_are_problems(
    files: Sequence[str], elsewhere: Sequence[str], problems: Sequence[str], tmp_path: Path
) -> None:
    for file in files:
        path = tmp_path / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert list(missing(tmp_path, dict.fromkeys(elsewhere, NODE_TEST), {})) == problems
