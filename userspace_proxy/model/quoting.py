"""Quotes text of objects in messages: always as one line, and never all of a long text.

What a terminal or a log shows is printable: text from outside passes :func:`printable` at the edge
of each output (``cli.terminal.PrintableStream``, ``cli.log_writer``, ``status.text``), and leaves
its secrets there. Each word of a command has passed :func:`shell_command`.
"""

from __future__ import annotations

import json
import shlex

from ..secrets import without_secrets

SHOWN_MAX = 100
"""Characters of a text that a message contains; an annotation may have 256 KiB."""


def quoted(value: object) -> str:
    """Return a value as in Python, with an ellipsis in place of what is beyond ``SHOWN_MAX``."""
    if isinstance(value, str):
        # A part of a URL may be its password, and not be recognised.
        value = without_secrets(value)
        return f"{value[:SHOWN_MAX]!r}{'…' if len(value) > SHOWN_MAX else ''}"
    text = repr(value)
    return text if len(text) <= SHOWN_MAX else f"{text[:SHOWN_MAX]}…"


def shown(name: str) -> str:
    """Return a name as it is if it is printable and short, otherwise quoted."""
    return name if name.isprintable() and len(name) <= SHOWN_MAX else quoted(name)


def printable(text: str) -> str:
    r"""Return a line without secrets, with characters escaped that a terminal executes, or hides.

    These are control characters, marks of direction, and what else has no shape, as ``\u001b``,
    which is the same character in JSON.
    """
    text = without_secrets(text)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text)


def printable_lines(text: str) -> str:
    """Return a text in which only line breaks and tabs aren't printable, without secrets."""
    lines = without_secrets(text).split("\n")
    return "\n".join("\t".join(map(printable, line.split("\t"))) for line in lines)


def shell_command(*words: str) -> str:
    """Return what a shell reads as these words, with an ellipsis for each that can't be shown."""
    return " ".join(shlex.quote(word) if word.isprintable() else "'…'" for word in words)


def shell_word(value: object) -> str:
    """Return a name from outside as a word of a command, never a flag; a tuple as all its words."""
    if isinstance(value, tuple):
        return shell_command(*value)
    text = str(value)
    return "'…'" if text.startswith("-") else text and shell_command(text)
