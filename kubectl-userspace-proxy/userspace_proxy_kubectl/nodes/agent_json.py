"""Reads an agent's JSON: a whole answer, or a line of changes since the last one.

Rule 1: anything that isn't a proxy's JSON raises ValueError.

Source: ``status.stream.Changes``.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from userspace_proxy.clocks import Clocks
from userspace_proxy.facts import PortFacts, StatusFacts
from userspace_proxy.facts.connection import ConnectionFacts
from userspace_proxy.status.http_answer import TooLarge

from .decoding import Allowance

PORT_KEY = ("namespace", "service", "port", "family", "side")
"""The fields that identify a Service port across lines."""
LINE_BYTES = 64 << 10
"""Limit of a connection's line in bytes; a proxy's has some hundred."""

# The fields of an answer that a line may contain; absent ones cost nothing.
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
    """Return a whole answer's facts.

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
    """Return the connection in a stream's line.

    Raises:
        ValueError: It is none.
    """
    try:
        return Allowance(LINE_BYTES).decode(line, ConnectionFacts)
    except TooLarge as exc:
        raise ValueError(str(exc)) from exc


def _key(port: PortFacts) -> Sequence[str]:
    return tuple(str(getattr(port, name)) for name in PORT_KEY)
