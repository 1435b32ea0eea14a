"""Encodes changes of one table as messages, in the order in which they take effect.

    table = TableWriter("userspace-proxy/bridge", BRIDGE)
    table.create()
    table.add_base_chain("prerouting", "filter", PREROUTING, priority=10)
    table.add_rule("prerouting", match(MARK, 0x40, mask=0x40), assign(PACKET_TYPE, THIS_HOST))
    ruleset.commit(table.messages)

Source: net/netfilter/nf_tables_api.c.
"""

from __future__ import annotations

import itertools
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

from ..netlink.messages import ATTRIBUTE, CREATE, attribute, nested, number, request, text
from .expressions import (
    DATA_VALUE,
    DATA_VERDICT,
    GOTO,
    LIST_ELEMENT,
    NUMBER,
    VERDICT_CHAIN,
    VERDICT_CODE,
    InlineSet,
    InlineVerdicts,
    KeyType,
    Part,
    counter,
    go_by_inline,
    joined,
    look_up_inline,
)

INET, BRIDGE = 1, 7
"""Families of tables."""
PREROUTING, INPUT, FORWARD, OUTPUT, POSTROUTING = range(5)
NEW_TABLE, DELETE_TABLE, NEW_CHAIN, DELETE_CHAIN = 0xA00, 0xA02, 0xA03, 0xA05
NEW_RULE, DELETE_RULE = 0xA06, 0xA08
NEW_SET, NEW_ELEMENT, DELETE_ELEMENT = 0xA09, 0xA0C, 0xA0E
TABLE_DORMANT, TABLE_OWNED = 1, 2
# NFTA_TABLE_NAME, NFTA_CHAIN_TABLE and so on are all attribute 1.
TABLE = 1
CHAIN_NAME, CHAIN_HOOK, CHAIN_POLICY, CHAIN_TYPE = 3, 4, 5, 7
RULE_CHAIN, RULE_EXPRESSIONS = 2, 4
SET_NAME, SET_FLAGS = 2, 3
ELEMENTS, ELEMENT_KEY, ELEMENT_DATA, ELEMENT_KEY_END = 3, 1, 2, 10
_SET_ID, _ELEMENTS_SET_ID = 10, 4
_SET_COUNTER = 17
_ANONYMOUS, _CONSTANT, _MAP, _TIMEOUT, DYNAMIC_SET = 0x1, 0x2, 0x8, 0x10, 0x20
_INTERVALS, _CONCATENATED = 0x4, 0x80
_DESCRIPTION = 9
VERDICTS = 0xFFFFFF00
# The user data that nft needs to print numbers correctly: NFTA_SET_USERDATA with
# NFTNL_UDATA_SET_KEYBYTEORDER.
_HOST_ORDER = attribute(13, bytes([0, 4]) + (1).to_bytes(4, sys.byteorder))
_APPEND = 0x800
# The maximum size of the elements in one message. They form an attribute of at most 65,535 bytes.
ELEMENTS_BYTES_MAX = 60_000
# The IDs by which messages of one transaction name sets; several writers may share a transaction.
_IDS = itertools.count(1)


Elements = Mapping[bytes, bytes]
"""Keys with their values; in a set, the values are empty."""
SetElement = tuple[str, bytes, bytes]
"""A set's name, and a key with its value, both in the kernel's form so that they compare equal."""


class TableWriter:
    """The collected changes of one table."""

    def __init__(self, name: str, family: int = INET) -> None:
        self.messages: list[bytes] = []
        """Messages, to be committed in this order."""
        self._family = bytes([family, 0, 0, 0])
        self._table = text(TABLE, name)

    def create(self, *, is_owned: bool = False, was_owned: bool = False) -> None:
        """Create an empty table, which replaces an existing table.

        Args:
            was_owned: Whether the committing socket already owns the table.
            is_owned: Whether only the committing socket may change it; the kernel removes it with
                that socket (Linux ≥ 5.12).
        """
        owner = number(2, TABLE_OWNED) if is_owned else b""
        if was_owned:
            self._add(NEW_TABLE, owner)
            self._add(DELETE_TABLE)
        else:
            self.remove()
        self._add(NEW_TABLE, owner)

    def delete(self) -> None:
        """Remove the table, which must exist."""
        self._add(DELETE_TABLE)

    def remove(self) -> None:
        """Remove the table, whether it exists or not."""
        self._add(NEW_TABLE)
        self._add(DELETE_TABLE)

    def add_base_chain(self, name: str, kind: str, hook: int, priority: int) -> None:
        """Add a base chain of a kind (``filter``, ``nat``) with policy accept."""
        at = nested(CHAIN_HOOK, number(1, hook) + number(2, priority))
        self._add(NEW_CHAIN, text(CHAIN_NAME, name) + at + text(CHAIN_TYPE, kind))

    def add_chain(self, name: str) -> None:
        """Add a regular chain."""
        self._add(NEW_CHAIN, text(CHAIN_NAME, name))

    def delete_chain(self, name: str) -> None:
        """Delete an empty chain to which no rule or map refers."""
        self._add(DELETE_CHAIN, text(CHAIN_NAME, name))

    def flush_chain(self, name: str) -> None:
        self._add(DELETE_RULE, text(RULE_CHAIN, name))

    def add_rule(self, chain: str, *parts: Part) -> None:
        whole = b"".join(map(self._expressions, parts))
        body = text(RULE_CHAIN, chain) + nested(RULE_EXPRESSIONS, whole)
        self._add(NEW_RULE, body, CREATE | _APPEND)

    def add_set(self, name: str, key: KeyType, *, counts: bool = False) -> None:
        """Add a set without elements.

        Args:
            counts: Whether each element counts the packets that match it. Older kernels refuse such
                sets, or add elements without a counter.
        """
        self._add_set(name, key, 0, counter(_SET_COUNTER) if counts else b"")

    def add_map(self, name: str, key: KeyType, value: KeyType) -> None:
        values = number(6, value.number) + number(7, value.width)
        self._add_set(name, key, _MAP, values)

    def add_verdict_map(self, name: str, key: KeyType) -> None:
        self._add_set(name, key, _MAP, number(6, VERDICTS))

    def add_interval_set(
        self,
        name: str,
        parts: Sequence[KeyType],
        value: int | KeyType | None = None,
        *,
        counts: bool = False,
    ) -> None:
        """Add a set or map whose keys are of type :class:`Interval` (Linux ≥ 5.6).

        Args:
            parts: The types of a key's parts.
            value: The type of a map's values, or ``VERDICTS``; None for a set.
            counts: See :meth:`add_set`.
        """
        lengths = b"".join(nested(LIST_ELEMENT, number(1, part.width)) for part in parts)
        more = nested(_DESCRIPTION, nested(2, lengths))
        flags = _INTERVALS | _CONCATENATED
        if value is not None:
            flags |= _MAP
            kind, width = (value, 0) if isinstance(value, int) else value[:2]
            more += number(6, kind) + (number(7, width) if width else b"")
        if counts:
            more += counter(_SET_COUNTER)
        self._add_set(name, joined(*parts), flags, more)

    def add_dynamic_set(self, name: str, key: KeyType, size: int) -> None:
        """Add a set to which rules add at most ``size`` elements, with timeouts."""
        self._add_set(name, key, _TIMEOUT | DYNAMIC_SET, nested(9, number(1, size)))

    def add_elements(self, name: str, elements: Elements) -> None:
        """Add elements to a set or map.

        The kernel refuses a key that the map contains with another value; adding an equal element
        has no effect. In a verdict map, all values must be of type :class:`Verdict`.
        """
        self._elements(NEW_ELEMENT, text(SET_NAME, name), elements)

    def delete_elements(self, name: str, keys: Iterable[bytes]) -> None:
        """Delete elements of a set or map; the kernel refuses a missing key."""
        self._elements(DELETE_ELEMENT, text(SET_NAME, name), dict.fromkeys(keys, b""))

    def change_elements(
        self, sets: Sequence[str], removed: Iterable[SetElement], added: Iterable[SetElement]
    ) -> None:
        """Remove elements in the order of ``sets``, then add elements in the reverse order."""
        gone, new = _by_set(removed), _by_set(added)
        for name in sets:
            if name in gone:
                self.delete_elements(name, gone[name])
        for name in reversed(sets):
            if name in new:
                self.add_elements(name, new[name])

    def _add(self, kind: int, body: bytes = b"", flags: int = CREATE) -> None:
        self.messages.append(request(kind, flags, self._family + self._table + body))

    def _add_set(self, name: str, key: KeyType, flags: int, more: bytes = b"") -> int:
        set_id = next(_IDS)
        body = text(SET_NAME, name) + number(SET_FLAGS, flags) + number(_SET_ID, set_id)
        if key.is_in_host_order:
            more += _HOST_ORDER
        self._add(NEW_SET, body + number(4, key.number) + number(5, key.width) + more)
        return set_id

    def _expressions(self, part: Part) -> bytes:
        if isinstance(part, bytes):
            return part
        return self._inline(part) if isinstance(part, InlineSet) else self._inline_map(part)

    def _inline(self, inline: InlineSet) -> bytes:
        """Create a set for one rule, whose name the kernel chooses; return the look-up in it."""
        name, field = "__set%d", inline.field
        size = nested(9, number(1, len(inline.values)))
        set_id = self._add_set(name, inline.key, _ANONYMOUS | _CONSTANT, size)
        keys = (value.to_bytes(field.width, field.order) for value in inline.values)
        place = text(SET_NAME, name) + number(_ELEMENTS_SET_ID, set_id)
        self._elements(NEW_ELEMENT, place, dict.fromkeys(keys, b""))
        return look_up_inline(inline, name, set_id)

    def _inline_map(self, inline: InlineVerdicts) -> bytes:
        """Create a map for one rule, whose name the kernel chooses; return the look-up in it."""
        name = "__map%d"
        more = number(6, VERDICTS) + nested(9, number(1, len(inline.verdicts)))
        set_id = self._add_set(name, NUMBER, _ANONYMOUS | _CONSTANT | _MAP, more)
        place = text(SET_NAME, name) + number(_ELEMENTS_SET_ID, set_id)
        verdicts = map(Verdict, inline.verdicts)
        keys = (index.to_bytes(NUMBER.width, sys.byteorder) for index in itertools.count())
        self._elements(NEW_ELEMENT, place, dict(zip(keys, verdicts, strict=False)))
        return go_by_inline(inline, name, set_id)

    def _elements(self, kind: int, place: bytes, elements: Elements) -> None:
        key, value = next(iter(elements.items()), (b"", b""))
        is_plain = not isinstance(key, Interval) and not isinstance(value, Verdict)
        for packed in _packed(elements) if is_plain else _packed_one_by_one(elements):
            self._add(kind, place + nested(ELEMENTS, packed))


class Verdict(bytes):
    """The value of an element in a verdict map, as the kernel lists it."""


class Interval(bytes):
    """The key of an interval: the interval's first key, followed by its last key (inclusive)."""

    @property
    def first(self) -> bytes:
        return self[: len(self) // 2]

    @property
    def last(self) -> bytes:
        return self[len(self) // 2 :]


def goto_chain(chain: str) -> Verdict:
    """Return the verdict that continues in a chain."""
    return Verdict(number(VERDICT_CODE, GOTO) + text(VERDICT_CHAIN, chain))


def _by_set(elements: Iterable[SetElement]) -> dict[str, dict[bytes, bytes]]:
    found: dict[str, dict[bytes, bytes]] = defaultdict(dict)
    for name, key, value in elements:
        found[name][key] = value
    return found


def _packed(elements: Elements) -> Iterator[bytes]:
    """Yield equally large elements in pieces that fit into an attribute."""
    waiting = iter(elements.items())
    sizes = next(iter(elements.items()), (b"", b""))
    # Cost: all elements have the same headers, which are packed once.
    before, between, behind = _frame(*map(len, sizes))
    width = sum(map(len, (before, between, behind, *sizes)))
    while some := list(itertools.islice(waiting, ELEMENTS_BYTES_MAX // width)):
        yield b"".join([before + key + between + value + behind for key, value in some])


def _packed_one_by_one(elements: Elements) -> Iterator[bytes]:
    """Yield elements with verdicts or intervals in pieces that fit into an attribute."""
    values = {value: _packed_value(value) for value in set(elements.values())}
    packed = [
        nested(LIST_ELEMENT, _packed_key(key) + values[value]) for key, value in elements.items()
    ]
    batch = ELEMENTS_BYTES_MAX // max(map(len, packed))
    for start in range(0, len(packed), batch):
        yield b"".join(packed[start : start + batch])


def _packed_key(key: bytes) -> bytes:
    if not isinstance(key, Interval):
        return nested(ELEMENT_KEY, attribute(DATA_VALUE, key))
    last = nested(ELEMENT_KEY_END, attribute(DATA_VALUE, key.last))
    return nested(ELEMENT_KEY, attribute(DATA_VALUE, key.first)) + last


def _packed_value(value: bytes) -> bytes:
    if isinstance(value, Verdict):
        return nested(ELEMENT_DATA, nested(DATA_VERDICT, value))
    return nested(ELEMENT_DATA, attribute(DATA_VALUE, value)) if value else b""


def _frame(key_width: int, value_width: int) -> tuple[bytes, bytes, bytes]:
    """Return the bytes before the key of an element, between key and value, and after the value."""
    parts = nested(ELEMENT_KEY, attribute(DATA_VALUE, bytes(key_width)))
    if value_width:
        parts += nested(ELEMENT_DATA, attribute(DATA_VALUE, bytes(value_width)))
    whole = nested(LIST_ELEMENT, parts)
    key_at = 3 * ATTRIBUTE.size
    value_at = len(whole) - value_width - (-value_width % 4)
    return whole[:key_at], whole[key_at + key_width : value_at], whole[value_at + value_width :]
