"""Reads what ginkgo wrote about a run."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

PASSED, FAILED, SKIPPED = "passed", "failed", "skipped"
_IT = re.compile(r"^\[It\] (\[sig-network\] .*)$")
# A test that was not chosen says no more than this; one that chose not to run gives its reason.
_NOT_CHOSEN = "skipped"


@dataclass(frozen=True, slots=True)
class Result:
    """How one test ended."""

    name: str
    """As upstream names it, with its labels."""
    outcome: str
    """``passed``, ``failed`` or ``skipped``."""
    seconds: float
    reason: str
    """Why it failed or was skipped, one line; empty when it passed."""


def read_results(report: Path) -> list[Result]:
    """Return how the chosen tests ended, sorted by name."""
    root = ET.parse(report).getroot()
    found = [result for case in root.iter("testcase") for result in _read(case)]
    return sorted(found, key=lambda result: result.name)


def _read(case: ET.Element) -> Iterator[Result]:
    name = _IT.match(case.get("name", ""))
    skipped = case.find("skipped")
    if name is None or (skipped is not None and skipped.get("message") == _NOT_CHOSEN):
        return
    outcome, reason = PASSED, ""
    for kind in ("failure", "error"):
        if (element := case.find(kind)) is not None:
            outcome, reason = FAILED, element.get("message", "")
    if skipped is not None:
        outcome, reason = SKIPPED, skipped.get("message", "").removeprefix("skipped - ")
    yield Result(name[1], outcome, float(case.get("time", "0")), " ".join(reason.split())[:300])
