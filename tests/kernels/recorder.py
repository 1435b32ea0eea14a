"""Writes pytest's results in a machine to ``tests.json`` in a folder, after each test.

``pytest -p tests.kernels.recorder --record=/result``. The file is complete after each test, so a
run that hits the deadline also has results. With ``--again``, earlier results are kept, and tests
that pass now, because the machine no longer stalls, are second tries.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.kernel_needs import LEFT_OUT


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--record", type=Path, required=True, help="the folder for tests.json")
    parser.addoption("--again", action="store_true", help="run those that failed once more")


def pytest_configure(config: pytest.Config) -> None:
    # With xdist, only the main process records, to which workers report.
    if not hasattr(config, "workerinput"):
        folder, again = config.getoption("--record"), config.getoption("--again")
        config.pluginmanager.register(Recorder(folder, config, is_again=again))


class Recorder:
    """Records the results of one pytest run.

    Args:
        folder: The folder for the file, and for the output of failed tests.
        is_again: Whether this run repeats failed tests, so that the file exists.
    """

    def __init__(self, folder: Path, config: pytest.Config, *, is_again: bool = False) -> None:
        self._folder = folder
        self._config = config
        self._before: dict[str, Any] | None = None
        if is_again:
            self._before = json.loads((folder / "tests.json").read_text())
        self._passed: set[str] = set()
        self._failed: dict[str, str] = {}
        self._left_out: list[tuple[str, str]] = []
        self._seconds: dict[str, float] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count a test once: as passed by its call, or as failed or skipped in any phase."""
        name = report.nodeid
        self._seconds[name] = round(self._seconds.get(name, 0.0) + report.duration, 1)
        if report.failed:
            self._failed.setdefault(name, report.longreprtext)
            # Print this at once, because a machine may shut down before it returns results.
            self._say(f"{name}, {report.when}: {error_line(report.longreprtext)}")
        elif report.skipped and isinstance(report.longrepr, tuple):
            reason = report.longrepr[2]
            self._left_out.append((reason.partition(LEFT_OUT)[2] or reason, name))
        elif report.passed and report.when == "call":
            self._passed.add(name)
        if report.when == "teardown":
            self.write()

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Record a module that can't be collected as a failed test."""
        if report.failed:
            self._failed[report.nodeid] = report.longreprtext

    def _say(self, line: str) -> None:
        reporter = self._config.pluginmanager.get_plugin("terminalreporter")
        if reporter is not None:
            reporter.write_line(f"\n{line}")

    def pytest_sessionfinish(self) -> None:
        self.write()

    def write(self) -> None:
        passed = self._passed - self._failed.keys()
        said = {
            "passed": len(passed),
            "failed": sorted(self._failed),
            "second_tries": [],
            "left_out": sorted(self._left_out),
            "seconds": dict(sorted(self._seconds.items(), key=lambda pair: -pair[1])),
        }
        if (before := self._before) is not None:
            said = before | {
                "passed": before["passed"] + len(passed),
                "failed": sorted({*before["failed"]} - passed),
                "second_tries": sorted(passed),
            }
        draft = self._folder / "tests.json.draft"
        draft.write_text(json.dumps(said, indent=1))
        draft.rename(self._folder / "tests.json")
        (self._folder / "failures.txt").write_text(
            "".join(f"{name}\n{text}\n\n" for name, text in self._failed.items())
        )


def error_line(text: str) -> str:
    """Return the first line of a failure that contains an error, or else its first line."""
    lines = [line for line in text.splitlines() if line.strip()]
    errors = [line.removeprefix("E").strip() for line in lines if line.startswith("E ")]
    return (errors or lines or ["no reason given"])[0]
