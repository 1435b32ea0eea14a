"""One finding: what was checked, and with which result."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass

from ..errors import UserspaceProxyError


class Mark(enum.StrEnum):
    """How well it is."""

    OK = "ok"
    WARNING = "warning"
    """It works, or may; somebody should know."""
    ERROR = "error"
    """``run`` would fail, or clients would not be served."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    mark: Mark
    topic: str
    """``config``, ``steering``, ``firewall``, … in a word or two."""
    what: str
    """One sentence without a full stop."""
    where: str = ""
    """File and line, table and chain, or file below /proc; empty where the sentence says it."""
    way_out: str = ""
    """What to do, as a command where there is one; empty where nothing is to be done."""

    def __str__(self) -> str:
        where = f" [{self.where}]" if self.where else ""
        way_out = f" -> {self.way_out}" if self.way_out else ""
        return f"{self.mark:<7}  {self.topic}: {self.what}{where}{way_out}"


def ok(topic: str, what: str, where: str = "") -> Finding:
    """Return a finding that all is well."""
    return Finding(Mark.OK, topic, what, where)


def warning(topic: str, what: str, where: str = "", way_out: str = "") -> Finding:
    """Return a finding that somebody should know."""
    return Finding(Mark.WARNING, topic, what, where, way_out)


def error(topic: str, what: str, where: str = "", way_out: str = "") -> Finding:
    """Return a finding by which clients wouldn't be served."""
    return Finding(Mark.ERROR, topic, what, where, way_out)


def reason(exc: UserspaceProxyError) -> str:
    """Return an error's words on one line."""
    return " ".join(str(exc).split())


def worst(findings: Iterable[Finding]) -> Mark:
    """Return the worst mark; OK for none."""
    marks = {finding.mark for finding in findings}
    return next((mark for mark in (Mark.ERROR, Mark.WARNING) if mark in marks), Mark.OK)
