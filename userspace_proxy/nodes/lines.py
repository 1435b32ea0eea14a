"""Reads the JSON of an agent: a whole answer, or a line of what has changed since the last one.

Rule 1: what isn't the JSON of a proxy raises ValueError, whatever it is.

Source: ``status.stream.Changes``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_type_hints

import msgspec

from ..facts import PortFacts, StatusFacts
from ..facts.connection import ConnectionFacts
from .ask import ANSWER_BYTES
from .decoding import Allowance, TooLarge

PORT_KEY = ("namespace", "service", "port", "family", "side")
"""The fields by which a Service port is the same in another line."""
LINE_BYTES = 64 << 10
"""Of a connection; a proxy's has some hundred."""

# What a line has of an answer: the others of its fields cost nothing.
_FIELDS = {
    name: kind
    for name, kind in get_type_hints(StatusFacts, include_extras=True).items()
    if name in StatusFacts.__struct_fields__
}
_Change = msgspec.defstruct(
    "_Change",
    [
        *((name, kind | msgspec.UnsetType, msgspec.UNSET) for name, kind in _FIELDS.items()),
        ("gone", list[dict[str, str]], msgspec.field(default_factory=list)),
    ],
)


def read_whole_line(line: bytes, allowance: Allowance | None = None) -> StatusFacts:
    """Return the facts in a whole answer.

    Raises:
        ValueError: It isn't one of a proxy.
        TooLarge: It takes too much.
    """
    status = (allowance or Allowance(ANSWER_BYTES)).decode(line, StatusFacts)
    if not status.version:
        raise ValueError("it names no version of a proxy")
    return status


def read_change(
    before: StatusFacts, line: bytes, allowance: Allowance | None = None
) -> StatusFacts:
    """Return the facts after a line of changes.

    Raises:
        ValueError: It isn't one of a proxy.
        TooLarge: It takes too much.
    """
    part: Any = (allowance or Allowance(ANSWER_BYTES)).decode(line, _Change)
    given = ((name, getattr(part, name)) for name in _FIELDS)
    changes = {name: value for name, value in given if value is not msgspec.UNSET}
    if "ports" in changes or part.gone:
        ports = {_key(port): port for port in before.ports}
        ports.update((_key(port), port) for port in changes.get("ports", ()))
        for one in part.gone:
            ports.pop(tuple(one.get(name, "") for name in PORT_KEY), None)
        changes["ports"] = [*ports.values()]
    return msgspec.structs.replace(before, **changes)


def read_connection_line(line: bytes) -> ConnectionFacts:
    """Return the connection of a line of a stream.

    Raises:
        ValueError: It is none.
    """
    try:
        return Allowance(LINE_BYTES).decode(line, ConnectionFacts)
    except TooLarge as exc:
        raise ValueError(str(exc)) from exc


def _key(port: PortFacts) -> Sequence[str]:
    return tuple(str(getattr(port, name)) for name in PORT_KEY)
