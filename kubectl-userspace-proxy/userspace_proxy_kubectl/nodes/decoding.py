"""Decodes nodes' answers within limits: estimates the cost before decoding, and measures it after.

    bytes ──most_of──▶ may they be decoded? ──▶ value ──checked──▶ may it be kept, and shown?

The bytes are a whole answer, or a line of changes (``status.stream.Changes``).

Rule 1: everything that nodes send is decoded here, as their agents may be hostile.
Rule 2: even an empty object may decode to the largest value of its type, so objects, lists and
elements are counted, not only bytes. The time is proportional to their number.
Rule 3: numbers can be shown and summed: they are within the range on which JSON parsers agree, and
times are within the range of calendars.

Source: RFC 8259, 6 (numbers up to 2^53 are interoperable).
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec

from userspace_proxy.causes.cause import Cause, newer_codes
from userspace_proxy.clocks import Clocks
from userspace_proxy.facts import PortFacts, StatusFacts
from userspace_proxy.facts.connection import ConnectionFacts
from userspace_proxy.facts.encoding import from_json
from userspace_proxy.pacing import Pacing
from userspace_proxy.status.http_answer import PORT_KEY, TooLarge
from userspace_proxy.struct_types import resolve

OBJECT_BYTES = 700
"""The maximum size of a decoded object in bytes: a Service port of ``{}``."""
ELEMENT_BYTES = 100
"""The size of a list, a list's element or a map's entry in bytes."""
CHARACTER_BYTES = 4
"""The size of a character of non-ASCII text in bytes."""
CAUSE_BYTES = 600
"""The cost of a cause beyond its object, as bytes: 20 µs to read it, and 2 µs per parameter."""
PORT_BYTES = 2000
"""The cost of a Service port beyond its memory, as bytes: 35 µs to merge and show it. An element of
a list costs ELEMENT_BYTES beyond its memory, for 1 to 2 µs."""
DECODED_PER_BYTE = 12
"""The maximum number of decoded bytes per byte of the answer's limit; proxies' answers need 11."""
KEPT_PER_BYTE = 4
"""The maximum number of kept bytes per byte of the limit; answers need 2.4, or 3.6 if all Services
fail."""
# The share of a processor for one node's changes; a proxy's changes take one percent.
_SHARE = 0.1

_NUMBER_MAX = 1 << 53
_TIME_MAX = 10_000_000_000
"""A Unix time in the year 2286."""
_TIME = re.compile(r"[a-z_]*_(?:at|since|done|queued)|now|started|at")
_CONTAINERS = frozenset((list, dict))
_T = TypeVar("_T")


@dataclass(slots=True)
class Allowance:
    """The memory that one answer may take, and the memory that it has taken so far."""

    body: int
    """The maximum size of the answer's JSON in bytes."""
    used: int = 0
    """The memory taken by decoded values; for a stream, by all lines since the last measurement."""
    pacing: Pacing = field(default_factory=lambda: Pacing(_SHARE))
    """Decides when the next change may be read."""
    _causes: int = 0
    """The memory taken by the causes that were read, which also bounds the time for reading."""

    def decode(self, line: bytes, kind: type[_T]) -> _T:
        """Decode an answer or a line of it.

        Raises:
            ValueError: The JSON isn't of this kind, or contains a number out of range.
            TooLarge: The decoded value takes too much memory.
        """
        if most_of(line) > DECODED_PER_BYTE * self.body:
            raise TooLarge(DECODED_PER_BYTE * self.body)
        resolve(kind)
        newer_codes.clear()
        self._causes = 0
        try:
            value = msgspec.json.decode(line, type=kind, dec_hook=self._read)
        except RecursionError as exc:
            raise ValueError("it is nested too deeply") from exc
        self.used += checked_size(value, KEPT_PER_BYTE * self.body)
        return value

    def _read(self, kind: type, value: object) -> object:
        read: Any = from_json(kind, value)
        self._causes += OBJECT_BYTES + CAUSE_BYTES + 2 * ELEMENT_BYTES * len(read.params)
        if self._causes > KEPT_PER_BYTE * self.body:
            raise TooLarge(KEPT_PER_BYTE * self.body)
        return read

    def measure(self, value: object) -> None:
        """Measure an answer that was assembled from lines, if it may have grown too large.

        Raises:
            TooLarge: The answer takes too much memory.
        """
        if self.used > KEPT_PER_BYTE * self.body:
            self.used = checked_size(value, KEPT_PER_BYTE * self.body)


def most_of(line: bytes) -> int:
    """Return the maximum memory in bytes that decoding a line takes, whatever its type."""
    is_narrow = line.isascii() and b"\\u" not in line
    return (
        len(line) * (1 if is_narrow else CHARACTER_BYTES)
        + line.count(b"{") * OBJECT_BYTES
        + (line.count(b"[") + line.count(b",")) * ELEMENT_BYTES
    )


def checked_size(value: Any, most: int) -> int:
    """Return the cost of a decoded value: its memory in bytes, and its time as bytes.

    Raises:
        ValueError: A number or time in it is out of range.
        TooLarge: The value costs more than ``most`` bytes.
    """
    size, left = 0, [("", value)]
    while left:
        name, one = left.pop()
        kind: Any = type(one)
        if kind is float or kind is int:
            is_time = one and _TIME.fullmatch(name)
            if not (0 <= one < _TIME_MAX if is_time else -_NUMBER_MAX <= one <= _NUMBER_MAX):
                raise ValueError(f"a {'time' if is_time else 'number'} in it is out of range")
        size += sys.getsizeof(one)
        if isinstance(one, msgspec.Struct):
            size += PORT_BYTES * (kind is PortFacts)
            fields = zip(kind.__struct_fields__, msgspec.structs.astuple(one), strict=True)
            # Cost: most fields have their default, which takes no memory and can be skipped.
            left += [pair for pair in fields if pair[1] or type(pair[1]) in _CONTAINERS]
        elif isinstance(one, list | tuple):
            size += ELEMENT_BYTES * len(one)
            left += [("", item) for item in one]
        elif isinstance(one, dict):
            left += [*one.items(), *(("", key) for key in one)]
        elif isinstance(one, Cause):
            size += CAUSE_BYTES
            given = one.modifiers().items()
            left += [("", dict(one.params)), *[pair for pair in given if pair[1]]]
        if size > most:
            raise TooLarge(most)
    return size


LINE_BYTES = 64 << 10
"""The maximum size of a connection's line in bytes; a proxy's line has a few hundred."""

# The fields of an answer that a line may contain; missing fields cost nothing.
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
        ValueError: The line isn't a proxy's answer.
        TooLarge: The answer takes too much memory.
    """
    status = allowance.decode(line, StatusFacts)
    if not status.version:
        raise ValueError("it names no version of a proxy")
    return status


def read_change(before: StatusFacts, line: bytes, allowance: Allowance) -> StatusFacts:
    """Return the facts after a line of changes.

    Raises:
        ValueError: The line isn't a proxy's answer.
        TooLarge: The changed answer takes too much memory.
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
        ValueError: The line isn't a connection.
    """
    try:
        return Allowance(LINE_BYTES).decode(line, ConnectionFacts)
    except TooLarge as exc:
        raise ValueError(str(exc)) from exc


def _key(port: PortFacts) -> Sequence[str]:
    return tuple(str(getattr(port, name)) for name in PORT_KEY)
