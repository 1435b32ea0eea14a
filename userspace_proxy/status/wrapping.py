"""Wraps text to a terminal's width, in the column where it begins.

    ✕ shop/flaky  10.96.0.30:80  0 of 1  Clients fail: no host answers
                                         for 10.244.0.9 on eth0

Rule 1: without a width, lines aren't wrapped, for programs that read them.
Rule 2: a command stays on one line, because it is pasted.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

LEAST_COLUMNS = 40
"""The minimum width of lines: the terminals of phones have about as many columns."""
# The minimum width of a text's column; if less room is left, the text begins on the line below
# instead.
_LEAST_TEXT = 32
_BELOW = " " * 6


def placed(head: str, text: str, columns: int) -> Iterator[str]:
    """Yield a head and a text as lines; the text is wrapped in its column, except at 0 columns."""
    if not columns or len(head) + len(text) <= columns:
        yield f"{head}{text}"
        return
    if columns - len(head) < _LEAST_TEXT:
        yield head.rstrip()
        head = _BELOW
    blanks = " " * (len(text) - len(text.lstrip()))
    lines = textwrap.wrap(
        text,
        columns - len(head),
        subsequent_indent=blanks,
        break_long_words=False,
        break_on_hyphens=False,
    )
    for number, line in enumerate(lines):
        yield f"{' ' * len(head) if number else head}{line}"


def placed_remedy(head: str, text: str, columns: int) -> Iterator[str]:
    """Yield the lines of a remedy; a command, which begins in lower case, isn't wrapped."""
    yield from placed(head, text, 0 if text[:1].islower() else columns)
