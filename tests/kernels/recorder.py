"""Writes what pytest found in a machine, test by test, into ``tests.json`` of a folder.

``pytest -p tests.kernels.recorder --record=/result``. After each test the file is whole, so what a
deadline ends has a result, too.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.kernel_needs import LEFT_OUT


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--record", type=Path, required=True, help="the folder for tests.json")


def pytest_configure(config: pytest.Config) -> None:
    # With xdist, workers report to the process that was started.
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Recorder(config.getoption("--record"), config))


class Recorder:
    """What was found so far.

    Args:
        folder: It gets the file, and what failed tests printed.
    """

    def __init__(self, folder: Path, config: pytest.Config) -> None:
        self._folder = folder
        self._config = config
        self._passed: set[str] = set()
        self._failed: dict[str, str] = {}
        self._left_out: list[tuple[str, str]] = []
        self._seconds: dict[str, float] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count a test once: passed in its call, failed or left out in any part."""
        name = report.nodeid
        self._seconds[name] = round(self._seconds.get(name, 0.0) + report.duration, 1)
        if report.failed:
            self._failed.setdefault(name, report.longreprtext)
            # A machine may end before its results are out.
            self._say(f"{name}, {report.when}: {last_words(report.longreprtext)}")
        elif report.skipped and isinstance(report.longrepr, tuple):
            reason = report.longrepr[2]
            self._left_out.append((reason.partition(LEFT_OUT)[2] or reason, name))
        elif report.passed and report.when == "call":
            self._passed.add(name)
        if report.when == "teardown":
            self.write()

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """A module that can't be collected is a test that fails."""
        if report.failed:
            self._failed[report.nodeid] = report.longreprtext

    def _say(self, line: str) -> None:
        reporter = self._config.pluginmanager.get_plugin("terminalreporter")
        if reporter is not None:
            reporter.write_line(f"\n{line}")

    def pytest_sessionfinish(self) -> None:
        self.write()

    def write(self) -> None:
        said = {
            "passed": len(self._passed - self._failed.keys()),
            "failed": sorted(self._failed),
            "left_out": sorted(self._left_out),
            "seconds": dict(sorted(self._seconds.items(), key=lambda pair: -pair[1])),
        }
        draft = self._folder / "tests.json.draft"
        draft.write_text(json.dumps(said, indent=1))
        draft.rename(self._folder / "tests.json")
        (self._folder / "failures.txt").write_text(
            "".join(f"{name}\n{text}\n\n" for name, text in self._failed.items())
        )


def last_words(text: str) -> str:
    """Return the line of a failure that has the error, or its last one."""
    lines = [line for line in text.splitlines() if line.strip()]
    errors = [line.removeprefix("E").strip() for line in lines if line.startswith("E ")]
    return (errors or lines or ["no reason given"])[0]
