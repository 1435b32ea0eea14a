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

import re
import sys
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec

from userspace_proxy.causes.cause import Cause, newer_codes
from userspace_proxy.errors import UserspaceProxyError
from userspace_proxy.facts import PortFacts
from userspace_proxy.facts.encoding import from_json
from userspace_proxy.pacing import Pacing

OBJECT_BYTES = 700
"""What an object becomes at most: a Service port of ``{}``."""
ELEMENT_BYTES = 100
"""A list, an element of one, or an entry of a map."""
CHARACTER_BYTES = 4
"""A character of a text that isn't ASCII."""
CAUSE_BYTES = 600
"""A cause beside its object; it takes 20 µs to be read, and 2 µs more for each parameter."""
PORT_BYTES = 2000
"""A Service port beside its memory, for 35 µs in which it is merged with others' and shown; an
element of a list has ELEMENT_BYTES beside its memory, for 1 to 2 µs."""
DECODED_PER_BYTE = 12
"""What is decoded, for each byte that the answer may have; proxies' answers have 11."""
KEPT_PER_BYTE = 4
"""What is kept of it; proxies' answers have 2.4, and 3.6 where all Services fail."""
# Of a processor, for the changes of one node; a proxy's take a hundredth.
_SHARE = 0.1

_NUMBER_MAX = 1 << 53
_TIME_MAX = 10_000_000_000
"""In the year 2286."""
_TIME = re.compile(r"[a-z_]*_(?:at|since|done|queued)|now|started|at")
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
    """What was decoded takes in memory; of a stream, of all lines since it was measured."""
    pacing: Pacing = field(default_factory=lambda: Pacing(_SHARE))
    """When the next change may be read."""
    _causes: int = 0
    """Those that were read take in memory; a bound of their time, too."""

    def decode(self, line: bytes, kind: type[_T]) -> _T:
        """Return what an answer, or a line of it, contains.

        Raises:
            ValueError: It isn't of this kind.
            TooLarge: It takes too much.
        """
        if most_of(line) > DECODED_PER_BYTE * self.body:
            raise TooLarge(DECODED_PER_BYTE * self.body)
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
        """Measure what lines have made of an answer, once they may have added too much.

        Raises:
            TooLarge: It takes too much.
        """
        if self.used > KEPT_PER_BYTE * self.body:
            self.used = checked_size(value, KEPT_PER_BYTE * self.body)


def most_of(line: bytes) -> int:
    """Return how many bytes of memory decoding takes at most, whatever the JSON is read as."""
    is_narrow = line.isascii() and b"\\u" not in line
    return (
        len(line) * (1 if is_narrow else CHARACTER_BYTES)
        + line.count(b"{") * OBJECT_BYTES
        + (line.count(b"[") + line.count(b",")) * ELEMENT_BYTES
    )


def checked_size(value: Any, most: int) -> int:
    """Return how many bytes of memory a decoded value takes.

    Raises:
        ValueError: A number in it, or a time, is out of range.
        TooLarge: They are more than ``most``.
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
            # Cost: most fields have a default that takes nothing, and need no turn of the loop.
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
