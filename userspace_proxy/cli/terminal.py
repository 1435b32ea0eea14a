"""Prints text to a terminal or a file, with colours, and as screens that are refreshed.

Rule 1: colours are added only on a terminal, and never with NO_COLOR (https://no-color.org).
Rule 2: text is plain on a terminal without escape sequences: ``TERM=dumb``, or Windows' old
console.
Rule 3: all output of a command passes a :class:`PrintableStream`; only this module bypasses the
stream, with text that it has made printable itself.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import TextIO

from ..model.quoting import printable_lines
from ..status.wrapping import LEAST_COLUMNS

COLUMNS_SHOWN = "USERSPACE_PROXY_COLUMNS"
"""The environment variable in which a calling program states the width of the terminal that shows
the output."""
EVERY_S = 1.0
"""Seconds between two screens."""

_RED, _YELLOW, _GREEN, _DIM, _BOLD = "31", "33", "32", "2", "1"
_COLOURS = {"✕": _RED, "!": _YELLOW, "✓": _GREEN, "·": _DIM}
_MARKED = re.compile(r"^(  )([✕!✓·])(?= )", re.MULTILINE)
# The sequences that enter and leave the terminal's alternate screen, as pagers do, and hide and
# show the cursor.
_ENTER, _LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"
_HOME, _END_OF_LINE, _END_OF_SCREEN = "\x1b[H", "\x1b[K", "\x1b[J"


class PrintableStream:
    """A stream that escapes control and direction characters, which a terminal interprets.

    Args:
        stream: The underlying stream, for all methods except writing.
    """

    def __init__(self, stream: TextIO) -> None:
        self.unescaped = stream

    def write(self, text: str) -> int:
        self.unescaped.write(printable_lines(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> object:
        return getattr(self.unescaped, name)


def _unescaped(stream: TextIO) -> TextIO:
    return stream.unescaped if isinstance(stream, PrintableStream) else stream


def wants_colours(stream: TextIO, environment: Mapping[str, str] = os.environ) -> bool:
    """Return whether text for a stream is coloured."""
    return stream.isatty() and not environment.get("NO_COLOR") and not _is_dumb(environment)


def columns_of(stream: TextIO, environment: Mapping[str, str] = os.environ) -> int:
    """Return the maximum width of lines in columns; 0 if no terminal shows the lines.

    COLUMNS doesn't apply to files and pipes: programs that use readline export it.
    """
    if text := environment.get(COLUMNS_SHOWN):
        return max(int(text), LEAST_COLUMNS)
    return max(shutil.get_terminal_size().columns, LEAST_COLUMNS) if stream.isatty() else 0


def add_colours(text: str) -> str:
    """Return the text with coloured marks and a bold first line."""
    first, newline, rest = text.partition("\n")
    marked = _MARKED.sub(lambda m: f"{m[1]}\x1b[{_COLOURS[m[2]]}m{m[2]}\x1b[0m", rest)
    return f"\x1b[{_BOLD}m{first}\x1b[0m{newline}{marked}"


def fit(text: str, columns: int, lines: int) -> str:
    """Return the lines that fit on a screen; if some don't, a last line counts these."""
    shown: list[str] = []
    left = lines - 1
    rows = text.rstrip("\n").split("\n")
    for row in rows:
        left -= max(1, -(-len(row) // columns))
        if left < 0 or (left == 0 and len(shown) + 1 < len(rows)):
            shown.append(f"  … {len(rows) - len(shown):,} more lines")
            break
        shown.append(row)
    return "\n".join(shown)


def write(stream: TextIO, text: str) -> None:
    """Write a string in printable form, and in colour if :func:`wants_colours`."""
    text = printable_lines(text)
    _unescaped(stream).write(add_colours(text) if wants_colours(stream) else text)


def write_line(stream: TextIO, text: str) -> None:
    """Write a line like :func:`write`, but not in bold type."""
    line = printable_lines(f"{text}\n")
    coloured = add_colours(f"\n{line}").partition("\n")[2] if wants_colours(stream) else line
    _unescaped(stream).write(coloured)


def wait(seconds: float) -> None:
    """Wait, so that Ctrl-C raises KeyboardInterrupt at once."""
    threading.Event().wait(seconds)


def watch(
    show: Callable[[], str],
    stream: TextIO,
    *,
    wait: Callable[[float], object] = wait,
    environment: Mapping[str, str] = os.environ,
) -> None:
    """Show a text every second until Ctrl-C, which raises KeyboardInterrupt.

    A terminal shows as much as fits, and its previous content at the end. To files, and terminals
    without escape sequences, the texts are written one after another.

    Args:
        show: Returns the text; it ends with a newline.
        wait: Waits for a number of seconds.
    """
    is_terminal = stream.isatty() and not _is_dumb(environment)
    stream = _unescaped(stream)
    if is_terminal:
        stream.write(_ENTER)
    try:
        while True:
            text = printable_lines(show())
            stream.write(_screen(text, stream) if is_terminal else text)
            stream.flush()
            wait(EVERY_S)
    finally:
        if is_terminal:
            stream.write(_LEAVE)
            stream.flush()


def _is_dumb(environment: Mapping[str, str]) -> bool:
    # Windows Terminal sets WT_SESSION, and the terminals of Git and Cygwin set TERM; the old
    # console sets neither.
    if sys.platform == "win32" and not environment.keys() & {"WT_SESSION", "TERM"}:
        return True
    return environment.get("TERM") == "dumb"


def _screen(text: str, stream: TextIO) -> str:
    size = shutil.get_terminal_size()
    shown = fit(text, size.columns, size.lines)
    if wants_colours(stream):
        shown = add_colours(shown)
    return _HOME + shown.replace("\n", f"{_END_OF_LINE}\n") + _END_OF_LINE + _END_OF_SCREEN
