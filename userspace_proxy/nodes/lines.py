"""Reads the JSON of an agent: a whole answer, or a line of what has changed since the last one.

Rule 1: what isn't the JSON of a proxy raises ValueError, whatever it is.
Rule 2: a number of an answer can be shown and summed: none is beyond those that JSON's readers
agree upon, and a time is one that calendars have.

Source: RFC 8259, 6 (numbers up to 2^53 are interoperable); ``status.stream.Changes``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TypeVar

import msgspec

from ..facts import PortFacts, StatusFacts
from ..facts.encoding import read_answer

PORT_KEY = ("namespace", "service", "port", "family", "side")
"""The fields by which a Service port is the same in another line."""

# 17 digits, or an exponent as large.
_LARGE_NUMBER = re.compile(rb"[:\[,]\s?-?(?:\d{17}|\d+(?:\.\d+)?[eE]\+?(?:1[6-9]|[2-9]\d|\d{3}))")
# Unix times after the year 2286, or before 1970.
_LARGE_TIME = re.compile(
    rb'"(?:[a-z_]{0,30}_(?:at|since|done|queued)|now|started|at)":\s?(?:-|\d{11})'
)
# A text without an end is one, too: others would be looked for at each quote within it.
_TEXT = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"(\s?:)?|\\?\Z)', re.DOTALL)
_T = TypeVar("_T")

_FIELDS = frozenset(StatusFacts.__struct_fields__)


class _Gone(msgspec.Struct, frozen=True):
    gone: list[dict[str, str]] = []


def read_whole_line(line: bytes) -> StatusFacts:
    """Return the facts in a whole answer.

    Raises:
        ValueError: It isn't one of a proxy.
    """
    status = _read(line)
    if not status.version:
        raise ValueError("it names no version of a proxy")
    return status


def read_change(before: StatusFacts, line: bytes) -> StatusFacts:
    """Return the facts after a line of changes.

    Raises:
        ValueError: It isn't one of a proxy.
    """
    part = _read(line)
    given = _decoded(line, dict[str, msgspec.Raw]).keys()
    names = (_FIELDS & given) - {"ports"}
    changes = {name: getattr(part, name) for name in names}
    if "ports" in given or "gone" in given:
        ports = {_key(port): port for port in before.ports}
        ports.update((_key(port), port) for port in part.ports)
        for gone in _decoded(line, _Gone).gone:
            ports.pop(tuple(gone.get(name, "") for name in PORT_KEY), None)
        changes["ports"] = [*ports.values()]
    return msgspec.structs.replace(before, **changes)


def _key(port: PortFacts) -> Sequence[str]:
    return tuple(str(getattr(port, name)) for name in PORT_KEY)


def _read(line: bytes) -> StatusFacts:
    for pattern, what in ((_LARGE_NUMBER, "a number"), (_LARGE_TIME, "a time")):
        # Texts may contain what looks the same, which is rare.
        if pattern.search(line) and pattern.search(_TEXT.sub(_without_text, line)):
            raise ValueError(f"{what} in it is out of range")
    try:
        return read_answer(line)
    except RecursionError as exc:
        raise ValueError("it is nested too deeply") from exc


def _without_text(found: re.Match[bytes]) -> bytes:
    """Return a key as it is, and an empty text for any other one."""
    return found[0] if found[1] else b'""'


def _decoded(line: bytes, kind: type[_T]) -> _T:
    return msgspec.json.decode(line, type=kind)
