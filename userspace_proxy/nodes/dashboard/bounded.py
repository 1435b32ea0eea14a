"""Keeps figures of agents within what can be written, and texts within what can be read.

Rule 1: what an agent claims costs no page: a number of 400 digits would be an error of the function
that writes it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

# No counter has more, and as many nodes' sums can be written.
_MOST = 2**53
_LONGEST = 2_000


_N = TypeVar("_N", int, float)


def bounded(number: _N) -> _N:
    """Return a number that every function of ``facts.units`` can write."""
    return min(max(number, -_MOST), _MOST)


def writes(function: Callable[..., str]) -> Callable[..., str]:
    """Return a function that writes its first argument, a number, within bounds."""

    def write(number: float, *words: str) -> str:
        return function(bounded(number), *words)

    return write


def cut(text: str) -> str:
    """Return a text, or the beginning of a long one."""
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
