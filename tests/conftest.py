"""Runs all tests in a network namespace with only loopback, and forbids skips in CI."""

from __future__ import annotations

import errno
import faulthandler
import gc
import os
import platform
from collections.abc import Generator, Iterator

import pytest
from hypothesis import settings
from pytest_timeout import Settings

from . import kernel_needs, loopback

# Every run draws the same examples; `make test-all` draws more of them. `make fuzz` draws new ones:
# add an input that fails to its test with ``@example``. Examples have no deadline, because a busy
# machine makes them slower.
_SAME = {"derandomize": True, "database": None, "deadline": None}
settings.register_profile("repeatable", **_SAME, max_examples=25)
settings.register_profile("thorough", **_SAME, max_examples=100)
settings.register_profile("explore", max_examples=2000, deadline=None, print_blob=True)
settings.load_profile("repeatable")

MAY_BE_SKIPPED = {
    "tests/unit/plane/test_privileges.py::test_root_drops_its_supplementary_groups": (
        "only root has groups that it could leave"
    ),
}
"""Tests that CI may skip, with the reason; a missing program isn't a reason."""


ENDS_WITHIN_S = 90.0
"""The seconds for which a test may exceed its timeout, and which a teardown may take."""

_STDERR = pytest.StashKey[int]()


def pytest_configure(config: pytest.Config) -> None:
    """Cut this process off from all networks; each worker of xdist calls this, too.

    The umask makes files that tests write readable by other users, as whom some tests run.
    """
    os.umask(0o022)
    try:
        loopback.enter()
    except loopback.NoNamespaceError as error:
        pytest.exit(str(error), returncode=pytest.ExitCode.USAGE_ERROR)
    with config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        config.stash[_STDERR] = os.dup(2)


@pytest.hookimpl(wrapper=True)
def pytest_timeout_set_timer(item: pytest.Item, settings: Settings) -> Generator[None, None, None]:
    """End this process if the timeout doesn't end the test.

    A test on uvloop would wait forever, because uvloop only logs exceptions of signal handlers.
    """
    faulthandler.dump_traceback_later(
        settings.timeout + ENDS_WITHIN_S, exit=True, file=item.config.stash[_STDERR]
    )
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_timeout_cancel_timer() -> Generator[None, None, None]:
    """Cancel the timer of :func:`pytest_timeout_set_timer`."""
    faulthandler.cancel_dump_traceback_later()
    return (yield)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, None, None]:
    """End this process with a stack trace of each thread if a test's teardown hangs."""
    faulthandler.dump_traceback_later(ENDS_WITHIN_S, exit=True, file=item.config.stash[_STDERR])
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests on asyncio's own loop as ``long``, because the product runs on uvloop."""
    for item in items:
        callspec = getattr(item, "callspec", None)
        if callspec is not None and "asyncio" in callspec.id.split("-"):
            item.add_marker(pytest.mark.long)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test that requires a feature that this kernel lacks."""
    for part in sorted(kernel_needs.parts_needed(item)):
        kernel_needs.need(part)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """List the tests that were skipped because this kernel lacks a feature."""
    if rows := kernel_needs.table(terminalreporter.stats.get("skipped", ())):
        terminalreporter.section(f"left out on Linux {platform.release()}")
        for row in rows:
            terminalreporter.line(row)


def pytest_collection_finish() -> None:
    """Exclude the collected tests, which are never freed, from garbage collection.

    Otherwise a full collection takes 0.3 s, and each test of the data plane runs two.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def _unroutable() -> list[int]:
    return [loopback.count_unroutable()]


@pytest.fixture(autouse=True)
def _stays_on_loopback(_unroutable: list[int]) -> Iterator[None]:
    """Fail a test that dials or sends to an address beyond loopback, even though no packet leaves.

    Attempts in a shared fixture count towards the next test.
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
    _excuse_without_ipv6(report)
    if item.nodeid.partition("[")[0] not in MAY_BE_SKIPPED:
        _forbid_skips(report)
    return report


def _excuse_without_ipv6(report: pytest.TestReport) -> None:
    """Skip a test that failed because the kernel was started without IPv6."""
    if not report.failed or kernel_needs.HAS_IPV6:
        return
    said = report.longreprtext
    if os.strerror(errno.EAFNOSUPPORT) in said or "dualstack_ipv6 not supported" in said:
        report.outcome = "skipped"
        path, line, _ = report.location
        report.longrepr = (path, line or 0, f"Skipped: {kernel_needs.LEFT_OUT}IPv6")


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _forbid_skips(report)
    return report


def _forbid_skips(report: pytest.TestReport | pytest.CollectReport) -> None:
    """With CI=true, turn a skip into a failure."""
    if os.environ.get("CI") != "true" or not report.skipped or hasattr(report, "wasxfail"):
        return
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
    report.outcome = "failed"
    report.longrepr = f"{reason}; with CI=true no test may be skipped (tests/conftest.py)"
