"""Reads the JSON of an agent: a whole answer, or a line of what has changed since the last one.

Rule 1: what isn't the JSON of a proxy raises ValueError, whatever it is.

Source: ``status.stream.Changes``.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from userspace_proxy.clocks import Clocks
from userspace_proxy.facts import PortFacts, StatusFacts
from userspace_proxy.facts.connection import ConnectionFacts

from .decoding import Allowance, TooLarge

PORT_KEY = ("namespace", "service", "port", "family", "side")
"""The fields by which a Service port is the same in another line."""
LINE_BYTES = 64 << 10
"""Of a connection; a proxy's has some hundred."""

# What a line has of an answer: the others of its fields cost nothing.
_Change = msgspec.defstruct(
    "_Change",
    [
        ("gone", list[dict[str, str]], []),
        *(
            (field.name, field.type | msgspec.UnsetType, msgspec.UNSET)
            for field in msgspec.structs.fields(StatusFacts)
        ),
    ],
)


def read_whole_line(line: bytes, allowance: Allowance) -> StatusFacts:
    """Return the facts in a whole answer.

    Raises:
        ValueError: It isn't one of a proxy.
        TooLarge: It takes too much.
    """
    status = allowance.decode(line, StatusFacts)
    if not status.version:
        raise ValueError("it names no version of a proxy")
    return status


def read_change(before: StatusFacts, line: bytes, allowance: Allowance) -> StatusFacts:
    """Return the facts after a line of changes.

    Raises:
        ValueError: It isn't one of a proxy.
        TooLarge: It takes too much.
    """
    began = Clocks.monotonic()
    given = msgspec.structs.asdict(allowance.decode(line, _Change))
    changes = {name: value for name, value in given.items() if value is not msgspec.UNSET}
    gone = changes.pop("gone")
    if "ports" in changes or gone:
        ports = {_key(port): port for port in before.ports}
        ports.update((_key(port), port) for port in changes.get("ports", ()))
        for one in gone:
            ports.pop(tuple(one.get(name, "") for name in PORT_KEY), None)
        changes["ports"] = [*ports.values()]
    status = msgspec.structs.replace(before, **changes)
    allowance.measure(status)
    allowance.pacing.note(began, Clocks.monotonic())
    return status


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
