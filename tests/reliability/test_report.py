"""The page: verdicts, figures and the table, from what was measured."""

from __future__ import annotations

import contextlib
from collections import Counter
from dataclasses import replace

import pytest

from tests.cluster.nodes.clients import Attempt
from tests.node.load import Outcome
from tests.tools.markdown import without_marked

from .evidence import LogLine
from .footprint import Footprint
from .measuring import Measured
from .report import line_of, page_of, verdict_of
from .rig import Rig
from .row import Limits, Row

MIB = 1024 * 1024
FAST = Outcome([Attempt(number / 50, 0.002, "ok") for number in range(100)])
REFUSED = Outcome([Attempt(1.0, 0.001, "ok"), Attempt(2.0, 0.5, "ConnectionResetError")])
BEFORE = Footprint(frozenset({7, 8}), 80, 5, 0, 100 * MIB, ("table inet userspace-proxy",))
ROW = Row(
    "pod-burns",
    "Endpoints",
    "a pod burns | melts",
    Limits(),
    [LogLine("pod burns")],
    contextlib.nullcontext,
    Rig,
)
HOLDS = Measured(
    row=ROW,
    quiet=FAST,
    web=FAST,
    cart=FAST,
    direct=FAST,
    shown=["log “pod burns”"],
    back_s=2.0,
    log_lines=["WARNING pod burns"],
    before=BEFORE,
    after=BEFORE,
    survived=True,
    figures=[],
    complaints=[],
)


def test_a_row_within_its_limits_holds() -> None:
    assert verdict_of(HOLDS) == "holds"
    assert line_of(HOLDS) == (
        "`pod-burns`",
        "a pod burns | melts",
        "none fails, slowest 0.5 s, back after 5 s",
        "0 of 100 failed, slowest 2 ms",
        "log",
        "2.0 s",
        "holds",
    )


@pytest.mark.parametrize(
    ("measured", "problem"),
    [
        pytest.param(replace(HOLDS, survived=False), "the proxy ended", id="ended"),
        pytest.param(replace(HOLDS, web=REFUSED), "1 of 2 connections failed", id="failed"),
        pytest.param(replace(HOLDS, cart=REFUSED), "1 connections of another", id="other"),
        pytest.param(replace(HOLDS, shown=[""]), "nothing showed a log line", id="not-shown"),
        pytest.param(replace(HOLDS, log_lines=["line"] * 99), "99 log lines", id="wordy"),
        pytest.param(replace(HOLDS, log_lines=["Traceback"]), "a traceback", id="traceback"),
        pytest.param(replace(HOLDS, back_s=99.0), "back after 99.0 s", id="late"),
        pytest.param(replace(HOLDS, complaints=["it burnt"]), "it burnt", id="complaint"),
        pytest.param(
            replace(HOLDS, after=replace(BEFORE, memory_bytes=200 * MIB)), "+100 MiB", id="memory"
        ),
        pytest.param(
            replace(HOLDS, after=replace(BEFORE, pids=frozenset({7, 9}))), "[7, 9]", id="replaced"
        ),
        pytest.param(replace(HOLDS, after=replace(BEFORE, rules=())), "rules", id="rules"),
    ],
)
def test_a_row_beyond_a_limit_fails_with_the_reason(measured: Measured, problem: str) -> None:
    assert verdict_of(measured).startswith("**fails**")
    assert problem in verdict_of(measured)


def test_the_other_service_may_be_as_slow_as_the_machine() -> None:
    slow = Outcome([replace(attempt, seconds=0.3) for attempt in FAST.attempts])
    assert "p99" in verdict_of(replace(HOLDS, cart=slow))
    assert verdict_of(replace(HOLDS, cart=slow, direct=slow)) == "holds"


def test_an_outcome_ends_when_the_last_client_was_served_without_a_wait() -> None:
    outcome = Outcome([Attempt(1.0, 9.0, "ok"), Attempt(5.0, 1.5, "ok"), Attempt(7.0, 0.1, "ok")])
    assert outcome.back_after(4.0) == 2.5
    assert REFUSED.failed == Counter(ConnectionResetError=1)


def test_what_a_row_promises_is_in_words() -> None:
    limits = Limits(failed=0.05, slowest_s=1.5, other_failed=3, other_p99_ms=100, back_s=2)
    assert list(limits.promises()) == [
        "5% fail",
        "slowest 1.5 s",
        "3 of another Service fail",
        "another Service's p99 100 ms",
        "back after 2 s",
    ]
    assert list(Limits(failed=1.0).promises()) == ["back after 5 s"]


def test_the_page_counts_rows_and_names_what_is_not_promised() -> None:
    limited = replace(HOLDS, row=replace(ROW, not_promised="ashes aren't restored"))
    page = page_of([HOLDS, limited, replace(HOLDS, survived=False)], {"kernel": "Linux 6"})
    assert "Of 3 rows, 1 hold, 1 hold with a limit that is stated, 1 failed" in page
    assert "- `pod-burns`: ashes aren't restored" in page
    assert "| kernel | Linux 6 |" in page
    assert "|" not in without_marked(page)
