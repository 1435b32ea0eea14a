"""Quotes text from objects in messages: always on one line, and shortened if long.

Terminals and logs show only printable text: input passes :func:`printable` at each output
(``cli.terminal.PrintableStream``, ``cli.log_writer``, ``status.text``), which also removes secrets.
Each word of a command passes :func:`shell_command`.
"""

from __future__ import annotations

import json
import shlex

from ..secrets import without_secrets

SHOWN_MAX = 100
"""The maximum length of a quoted string in a message; an annotation may be 256 KiB long."""


def quoted(value: object) -> str:
    """Return a value's ``repr``, truncated to ``SHOWN_MAX``; secrets in strings are removed."""
    if isinstance(value, str):
        # Remove secrets first: the password in a truncated URL might not be recognised.
        value = without_secrets(value)
        return f"{value[:SHOWN_MAX]!r}{'…' if len(value) > SHOWN_MAX else ''}"
    text = repr(value)
    return text if len(text) <= SHOWN_MAX else f"{text[:SHOWN_MAX]}…"


def shown(name: str) -> str:
    """Return a name unchanged if it is printable and short, otherwise quoted."""
    return name if name.isprintable() and len(name) <= SHOWN_MAX else quoted(name)


def printable(text: str) -> str:
    r"""Return a line without secrets, with characters escaped that a terminal interprets or hides.

    Control characters, direction marks and other invisible characters become ``\u001b``, as in
    JSON.
    """
    text = without_secrets(text)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text)


def printable_lines(text: str) -> str:
    """Return a string without secrets, in which all but newlines and tabs is made printable."""
    lines = without_secrets(text).split("\n")
    return "\n".join("\t".join(map(printable, line.split("\t"))) for line in lines)


def shell_command(*words: str) -> str:
    """Quote words for a shell; a word that can't be shown becomes an ellipsis."""
    return " ".join(shlex.quote(word) if word.isprintable() else "'…'" for word in words)


def shell_word(value: object) -> str:
    """Quote a name for a shell, or a tuple's words; a name with a leading dash becomes ``…``."""
    if isinstance(value, tuple):
        return shell_command(*value)
    text = str(value)
    return "'…'" if text.startswith("-") else text and shell_command(text)
