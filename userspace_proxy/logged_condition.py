"""Logs when a condition begins and when it ends, once each, and stores it in between.

    set("disk full")      logs the beginning
    set("disk full")      logs nothing: the same cause
    set("read-only")      logs the beginning: another cause
    clear()               logs the end

Rule 1: call :meth:`LoggedCondition.clear` when the condition is over, not when a fix has merely
been requested.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

_T = TypeVar("_T")


class LoggedCondition(Generic[_T]):
    """A condition that begins and ends, with one or several causes at a time.

    Args:
        log: Logs the lines.
        begins: The text that is logged for each new cause.
        ends: The text that is logged once no cause is left; empty to log nothing then.
        fields: Returns the beginning's fields, given a cause; by default ``cause``.
        level: The level of the beginning; the end is logged as INFO.
    """

    __slots__ = "_begins", "_ends", "_fields", "_level", "_log", "now"

    def __init__(
        self,
        log: logging.Logger | logging.LoggerAdapter[Any],
        begins: str,
        ends: str = "",
        *,
        fields: Callable[[_T], Mapping[str, object]] = lambda condition: {"cause": str(condition)},
        level: int = logging.WARNING,
    ) -> None:
        self._log = log
        self._begins = begins
        self._ends = ends
        self._fields = fields
        self._level = level
        self.now: tuple[_T, ...] = ()
        """The current causes; empty without a cause."""

    def __bool__(self) -> bool:
        return bool(self.now)

    def __str__(self) -> str:
        return str(self.now[0]) if self.now else ""

    def set(self, *causes: _T, **ending: object) -> None:
        """Replace the causes; log new causes, or the end once no cause is left.

        Args:
            causes: All current causes, not only new ones; an empty string counts as none.
            ending: The fields of the end, if it is logged.
        """
        self._note(tuple(filter(None, causes)), ending)

    def clear(self, **ending: object) -> None:
        """Record that the condition is over, and log its end unless it was over already."""
        self._note((), ending)

    def _note(self, now: tuple[_T, ...], ending: Mapping[str, object]) -> None:
        before, self.now = frozenset(self.now), now
        # The stack level makes records show the caller of the public methods.
        for cause in now:
            if cause not in before:
                self._log.log(self._level, self._begins, extra=self._fields(cause), stacklevel=3)
        if before and not now and self._ends:
            self._log.info(self._ends, extra=ending, stacklevel=3)
