"""Decodes what a node has sent: counted before and measured after, in what it costs this machine.

    bytes ──most_of──▶ may they be decoded? ──▶ value ──checked──▶ may it be kept, and shown?

Rule 1: all that nodes send is decoded here, as their agents may be anything.
Rule 2: an empty object may become the largest of its kind, so what is counted is objects, lists and
elements, not bytes alone. Their time is in proportion to that.
Rule 3: a number can be shown and summed: none is beyond those that JSON's readers agree upon, and a
time is one that calendars have.

Source: RFC 8259, 6 (numbers up to 2^53 are interoperable).
"""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from ..causes.cause import Cause, forget_newer_codes
from ..errors import UserspaceProxyError
from ..facts import PortFacts
from ..facts.encoding import from_json

OBJECT_BYTES = 700
"""What an object becomes at most: a Service port of ``{}``."""
LIST_BYTES = 90
ELEMENT_BYTES = 100
"""An element of a list, or an entry of a map."""
CHARACTER_BYTES = 4
"""A character of a text that isn't ASCII."""
CAUSE_BYTES = 600
"""A cause without its parameters beside its object; it takes 10 to 30 µs to be read."""
PORT_BYTES = 2000
"""A Service port beside its memory, for 35 µs in which it is merged with others' and shown; an
element of a list has ELEMENT_BYTES beside its memory, for 1 to 2 µs."""
DECODED_PER_BYTE = 12
"""What is decoded, for each byte that the answer may have; proxies' answers have 11."""
KEPT_PER_BYTE = 4
"""What is kept of it; proxies' answers have 2.4, and 3.6 where all Services fail."""

_NUMBER_MAX = 1 << 53
_TIME_MAX = 10_000_000_000
"""In the year 2286."""
_TIME = re.compile(r"[a-z_]*_(?:at|since|done|queued)|now|started|at")
_FLOAT_BYTES, _INT_BYTES, _SMALL_INT = 24, 32, 256
_CONTAINERS = frozenset((list, dict))
_T = TypeVar("_T")


class TooLarge(UserspaceProxyError):
    """An answer has more bytes than are read, or takes more memory.

    Args:
        bytes_max: How many.
    """

    def __init__(self, bytes_max: int) -> None:
        super().__init__(f"the answer takes more than {bytes_max} bytes")
        self.bytes_max = bytes_max


@dataclass(slots=True)
class Allowance:
    """What one answer may take, and what it takes."""

    body: int
    """Bytes of its JSON."""
    used: int = 0
    """What was decoded takes in memory; of a stream, of all lines since :meth:`measure`."""

    @property
    def kept_max(self) -> int:
        """What may be kept of it."""
        return KEPT_PER_BYTE * self.body

    def decode(self, line: bytes, kind: type[_T]) -> _T:
        """Return what an answer, or a line of it, contains.

        Raises:
            ValueError: It isn't of this kind.
            TooLarge: It takes too much.
        """
        if most_of(line) > DECODED_PER_BYTE * self.body:
            raise TooLarge(DECODED_PER_BYTE * self.body)
        forget_newer_codes()
        causes = self.kept_max // (OBJECT_BYTES + CAUSE_BYTES)

        def read(kind: type, value: object) -> object:
            nonlocal causes
            causes -= 1
            if causes < 0:
                raise TooLarge(self.kept_max)
            return from_json(kind, value)

        try:
            value = msgspec.json.decode(line, type=kind, dec_hook=read)
        except RecursionError as exc:
            raise ValueError("it is nested too deeply") from exc
        self.used += self._checked(value)
        return value

    def measure(self, value: object) -> None:
        """Note that this is all that is left of what was decoded.

        Raises:
            TooLarge: It takes too much.
        """
        self.used = self._checked(value)

    def _checked(self, value: object) -> int:
        size = checked_size(value, self.kept_max)
        if size > self.kept_max:
            raise TooLarge(self.kept_max)
        return size


def most_of(line: bytes) -> int:
    """Return how many bytes of memory decoding takes at most, whatever the JSON is read as."""
    is_narrow = line.isascii() and b"\\u" not in line
    return (
        len(line) * (1 if is_narrow else CHARACTER_BYTES)
        + line.count(b"{") * OBJECT_BYTES
        + line.count(b"[") * LIST_BYTES
        + line.count(b",") * ELEMENT_BYTES
    )


def checked_size(value: Any, most: int) -> int:
    """Return how many bytes of memory a decoded value takes, or a number beyond ``most``.

    Raises:
        ValueError: A number in it, or a time, is out of range.
    """
    size, left = 0, [value]
    while left and size <= most:
        one = left.pop()
        kind: Any = type(one)
        if kind is float or kind is int:
            if not -_NUMBER_MAX <= one <= _NUMBER_MAX:
                raise ValueError("a number in it is out of range")
            size += _FLOAT_BYTES if kind is float else _INT_BYTES * (one > _SMALL_INT)
            continue
        size += sys.getsizeof(one)
        if isinstance(one, msgspec.Struct):
            size += PORT_BYTES * (kind is PortFacts)
            values = msgspec.structs.astuple(one)
            _check_times(values[place] for place in _times_of(kind))
            # Cost: most fields have a default that takes nothing, and need no turn of the loop.
            left += [value for value in values if value or type(value) in _CONTAINERS]
        elif isinstance(one, list | tuple):
            size += ELEMENT_BYTES * len(one)
            left += one
        elif isinstance(one, dict):
            _check_times(value for name, value in one.items() if _TIME.fullmatch(name))
            left += (*one, *one.values())
        elif isinstance(one, Cause):
            size += CAUSE_BYTES
            _check_times((one.first_at, one.last_at))
            left += (dict(one.params), one.count, one.more, one.host, one.within, one.before)
    return size


@functools.cache
def _times_of(kind: type[msgspec.Struct]) -> tuple[int, ...]:
    """Return the places of the fields that are Unix times."""
    names = enumerate(kind.__struct_fields__)
    return tuple(place for place, name in names if _TIME.fullmatch(name))


def _check_times(values: Iterable[object]) -> None:
    for value in values:
        if isinstance(value, int | float) and not 0 <= value < _TIME_MAX:
            raise ValueError("a time in it is out of range")
