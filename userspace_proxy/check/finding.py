"""Defines a finding: the subject and the result of a check."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial

from ..errors import UserspaceProxyError


class Mark(enum.StrEnum):
    """The severity of a finding."""

    OK = "ok"
    WARNING = "warning"
    """The proxy works, or may work."""
    ERROR = "error"
    """``run`` would fail, or clients would not be served."""


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check."""

    mark: Mark
    topic: str
    """``config``, ``steering``, ``firewall``, …"""
    what: str
    """The finding, one sentence without a full stop."""
    where: str = ""
    """File and line, table and chain, or a file below /proc; may be empty."""
    hint: str = ""
    """The remedy, as a command if possible; may be empty."""

    def __str__(self) -> str:
        where = f" [{self.where}]" if self.where else ""
        hint = f" -> {self.hint}" if self.hint else ""
        return f"{self.mark:<7}  {self.topic}: {self.what}{where}{hint}"


ok = partial(Finding, Mark.OK)
"""Creates a finding without a problem."""
warning = partial(Finding, Mark.WARNING)
"""Creates a finding about a problem with which the proxy may still work."""
error = partial(Finding, Mark.ERROR)
"""Creates a finding about a problem that makes ``run`` fail, or leaves clients unserved."""


def reason(exc: UserspaceProxyError) -> str:
    """Return the text of an error on one line."""
    return " ".join(str(exc).split())


def worst(findings: Iterable[Finding]) -> Mark:
    """Return the worst mark; OK if there are no findings."""
    marks = {finding.mark for finding in findings}
    return next((mark for mark in (Mark.ERROR, Mark.WARNING) if mark in marks), Mark.OK)
