"""Draws a trace as a sequence diagram in text: the actions of clients, proxy and endpoints in time.

      seconds  client                   proxy                    endpoint
       0.2012  │ 3: dials service 0 ───▶│                        │
       0.2034  │                        │ dials 10.2.0.2 ───────▶│
       0.2056  │                        │◀───────────────────────│ 10.2.0.2#0: sent 232 B
    all stopped for 6 s ──────────────────────────────────────────────────────────────────

A line of a trace begins with the name of the actor and a colon; the first word of the name decides
its column. Other lines are about the node as a whole.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

WIDTH = 100
_TIME = 11
_PROXY = "proxy"
_VIOLATION = "VIOLATION"

_COLUMNS = ("cluster", "client", _PROXY, "table", "endpoint")
"""The columns in their order; those without events are left out."""
_BY_WORD: Mapping[str, str] = {
    "client": "client",
    "udp": "client",
    "endpoint": "endpoint",
    "proxy": _PROXY,
    "proxy's": _PROXY,
    "worker": _PROXY,
    "agent": _PROXY,
    "another": _PROXY,
    "service": _PROXY,
    "port": _PROXY,
    "table": "table",
    "kernel": "table",
    "server": "cluster",
    "api": "cluster",
    "put": "cluster",
    "pod": "endpoint",
    "delete": "cluster",
    "outage": "cluster",
}
_SENT = re.compile(r"\b(?:dials?|sent|sends|FIN after|close|RST)\b")
_ROWS = 3
"""The maximum number of rows of a step."""
# Texts that are shortened, or omitted because they aren't needed to follow the events.
_LONG: Sequence[tuple[str, str]] = (
    (r"SocketAddress\(ip='([^']+)', port=(\d+)\)", r"\1:\2"),
    (r"<\w+\.\w+: '([^']+)'>", r"\1"),
    (r"\b\w+=(?:None|\(\)|0|0\.0|False)(?:, |(?=\)))", ""),
    (r" from port \d+", ""),
)
_TO_ENDPOINT = re.compile(r"\bdial of\b")


class Step(NamedTuple):
    """One action of an actor."""

    at: float
    column: str
    """The actor's column; empty if the node as a whole is concerned."""
    text: str
    to: str
    """The receiver's column, or empty."""


def steps(trace: Sequence[tuple[float, str]], began: float) -> list[Step]:
    """Return the steps that the lines of a trace describe, in their order."""
    return [_step(when - began, text) for when, text in trace]


def diagram(trace: Sequence[tuple[float, str]], began: float, lines: int) -> Iterator[str]:
    """Yield the lines of a diagram of a trace's last steps, up to the first violation.

    Args:
        began: The time that is shown as 0.
        lines: The maximum number of lines.
    """
    texts = [text for _, text in trace]
    ends = next((n for n, text in enumerate(texts, 1) if text.startswith(_VIOLATION)), len(texts))
    done = steps(trace[:ends], began)
    used = {step.column for step in done} | {step.to for step in done}
    columns = [name for name in _COLUMNS if name in used] or [_PROXY]
    width = (WIDTH - _TIME) // len(columns)
    yield f"{'seconds':>{_TIME - 2}}  " + "".join(f"{name:{width}}" for name in columns).rstrip()
    rows = [row for step in done[-lines:] for row in _rows(step, columns, width)][-lines:]
    if len(done) > lines or len(rows) == lines:
        yield f"{'…':>{_TIME - 2}}  what was before: with --whole"
    yield from rows


def _step(at: float, text: str) -> Step:
    for pattern, new in _LONG:
        text = re.sub(pattern, new, text)
    name, colon, rest = text.partition(": ")
    word = name.partition(" ")[0].lower()
    column = _BY_WORD.get(word, "")
    if not column or text.startswith(_VIOLATION):
        return Step(at, "", text, "")
    # The column's header already contains the first word.
    short = text if column not in (word, "client") else text.partition(" ")[2]
    to = ""
    if column == _PROXY and _TO_ENDPOINT.search(name):
        to = "endpoint"
    elif column in ("client", "endpoint") and colon and _SENT.search(rest):
        to = _PROXY
    return Step(at, column, short.replace("proxy's dial", "dial"), to)


def _rows(step: Step, columns: Sequence[str], width: int) -> Iterator[str]:
    time = f"{step.at:{_TIME - 2}.4f}  "
    if not step.column:
        *before, last = _wrapped(step.text, WIDTH - _TIME - 1)
        for line in before:
            yield f"{time}{line}"
            time = " " * _TIME
        yield f"{time}{f'{last} '.ljust(WIDTH - _TIME, '─')}"
        return
    own = columns.index(step.column)
    for number, line in enumerate(_wrapped(step.text, width - 4)):
        cells = ["│".ljust(width)] * len(columns)
        cells[own] = f"│ {line}".ljust(width)
        if step.to in columns and not number:
            _draw_arrow(cells, own, columns.index(step.to), width)
        yield f"{' ' * _TIME if number else time}{''.join(cells)}".rstrip()


def _draw_arrow(cells: list[str], own: int, other: int, width: int) -> None:
    """Draw an arrow between two columns; its text is in the cell of the sender's column."""
    if other > own:
        cells[own] = f"{cells[own].rstrip()} ".ljust(width - 1, "─") + "▶"
        for between in range(own + 1, other):
            cells[between] = "─" * (width - 1) + "▶"
    for between in range(other, own):
        cells[between] = ("│◀" if between == other else "──").ljust(width, "─")


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, max_lines=_ROWS, placeholder=" …")
