"""Quotes text of objects in messages: always as one line, and never all of a long text."""

from __future__ import annotations

SHOWN_MAX = 100
"""Characters of a text that a message contains; an annotation may have 256 KiB."""


def quoted(value: object) -> str:
    """Return a value as in Python, with an ellipsis in place of what is beyond ``SHOWN_MAX``."""
    if isinstance(value, str):
        return f"{value[:SHOWN_MAX]!r}{'…' if len(value) > SHOWN_MAX else ''}"
    text = repr(value)
    return text if len(text) <= SHOWN_MAX else f"{text[:SHOWN_MAX]}…"


def shown(name: str) -> str:
    """Return a name as it is if it is printable and short, otherwise quoted."""
    return name if name.isprintable() and len(name) <= SHOWN_MAX else quoted(name)
