"""Ends a run that loops forever, by raising an exception in it."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator

from .kernel import Runaway

# The interval at which the exception is raised again if the product suppresses it.
_AGAIN_S = 0.5


class Endless(Runaway):
    """A run took more CPU time than any run that terminates."""


@contextlib.contextmanager
def no_longer_than(seconds: float) -> Iterator[None]:
    """Raise :class:`Endless` within the block once it has used that much CPU time."""
    before = signal.signal(signal.SIGVTALRM, _end)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds, _AGAIN_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def _end(_number: int, _frame: object) -> None:
    raise Endless
