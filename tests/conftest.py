"""What holds for every test: where it runs, and that none is skipped in CI."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator

import pytest

from . import loopback

MAY_BE_SKIPPED = {
    "tests/unit/plane/test_privileges.py::test_root_leaves_its_groups": (
        "only root has groups that it could leave"
    ),
}
"""What CI may skip, and why; a part that is missing on the machine is no reason."""


def pytest_configure() -> None:
    """Cut this process off from every network; with xdist each worker comes here too."""
    try:
        loopback.enter()
    except loopback.NoNamespaceError as error:
        pytest.exit(str(error), returncode=pytest.ExitCode.USAGE_ERROR)


@pytest.fixture(scope="session")
def _unroutable() -> list[int]:
    return [loopback.count_unroutable()]


@pytest.fixture(autouse=True)
def _stays_on_loopback(_unroutable: list[int]) -> Iterator[None]:
    """Fail a test that dials or sends to an address beyond loopback, though nothing leaves.

    What a shared fixture tried counts for the test that is run next.
    """
    yield
    seen = _unroutable.pop()
    _unroutable.append(loopback.count_unroutable())
    tried = _unroutable[0] - seen
    assert not tried, f"{tried} packets or dials were for addresses beyond loopback"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if item.nodeid.partition("[")[0] not in MAY_BE_SKIPPED:
        _forbid_skips(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _forbid_skips(report)
    return report


def _forbid_skips(report: pytest.TestReport | pytest.CollectReport) -> None:
    """Make a failure of a skip, where the environment says that this is CI."""
    if os.environ.get("CI") != "true" or not report.skipped or hasattr(report, "wasxfail"):
        return
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
    report.outcome = "failed"
    report.longrepr = f"{reason}; with CI=true nothing may be skipped (tests/conftest.py)"
