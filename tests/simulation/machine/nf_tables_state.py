"""The contents of nf_tables: tables with chains, rules and sets. A transaction changes a copy.

Source: include/net/netfilter/nf_tables.h.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from . import netlink_wire as wire

INET, IP, IP6 = 1, 2, 10
PREROUTING, INPUT, FORWARD, OUTPUT, POSTROUTING = range(5)
ANONYMOUS, CONSTANT, INTERVAL, MAP, TIMEOUT, DYNAMIC = 0x1, 0x2, 0x4, 0x8, 0x10, 0x20
CONCATENATED = 0x80
OWNED = 2
DROP, ACCEPT, CONTINUE, RETURN, JUMP, GOTO = 0, 1, -1, -5, -3, -4
VERDICTS = 0xFFFFFF00


@dataclass(frozen=True)
class Verdict:
    """The verdict of a rule or a map element."""

    code: int
    chain: str = ""


@dataclass(frozen=True)
class Expression:
    """One expression of a rule; a lookup has its set's name, not the set's ID."""

    name: str
    attributes: tuple[tuple[int, bytes], ...] = ()
    step: list[Callable[..., Verdict | None]] = field(
        default_factory=list, compare=False, repr=False
    )
    """The function that evaluates it, after its first use."""
    packed: list[bytes] = field(default_factory=list, compare=False, repr=False)
    """Its listed form, after its first listing."""

    @functools.cached_property
    def _found(self) -> dict[int, bytes]:
        return dict(self.attributes)

    @functools.cached_property
    def _numbers(self) -> dict[int, int]:
        return {kind: wire.number(value) for kind, value in self.attributes}

    def get(self, kind: int) -> bytes:
        """Return an attribute; empty if it is missing."""
        return self._found.get(kind, b"")

    def number(self, kind: int) -> int:
        return self._numbers.get(kind, 0)

    def has(self, kind: int) -> bool:
        return kind in self._found

    @functools.cached_property
    def first_numbers(self) -> tuple[int, int, int, int]:
        """The expression's attributes 1 to 4 as numbers."""
        return self.number(1), self.number(2), self.number(3), self.number(4)

    @functools.cached_property
    def value(self) -> bytes:
        """The data that the expression compares with, or writes to a register."""
        kind = 3 if self.name == "cmp" else 2
        return wire.table_of(self.get(kind)).get(1, b"")

    @functools.cached_property
    def masks(self) -> tuple[bytes, bytes]:
        """The bits that the expression keeps, and the bits that it then flips."""
        return wire.table_of(self.get(4))[1], wire.table_of(self.get(5))[1]

    @functools.cached_property
    def set_name(self) -> str:
        """The set that the expression looks up or changes; empty for none."""
        if self.name == "lookup":
            return wire.name(self.get(1))
        return wire.name(self.get(1)) if self.name == "dynset" else ""

    @functools.cached_property
    def verdict(self) -> Verdict | None:
        """The expression's own verdict; None if it has none."""
        if self.name != "immediate" or self.number(1):
            return None
        return read_verdict(wire.table_of(self.get(2)).get(2))


def read_verdict(packed: bytes | None) -> Verdict | None:
    """Return the verdict in packed attributes; None without attributes."""
    if packed is None:
        return None
    found = wire.table_of(packed)
    return Verdict(wire.signed(found.get(1)), wire.name(found.get(2)))


@dataclass(frozen=True)
class Rule:
    """One rule of a chain."""

    handle: int
    expressions: tuple[Expression, ...]
    user_data: bytes = b""
    packed: list[bytes] = field(default_factory=list, compare=False, repr=False)
    """The listed form of its expressions, after the first listing."""

    @functools.cached_property
    def guard(self) -> tuple[int, bytes] | None:
        """A metadata key, and the value that a packet must have to match; None without one."""
        if len(self.expressions) < 2:
            return None
        first, second = self.expressions[:2]
        key, register = first.number(2), first.number(1)
        is_one = first.name == "meta" and key in (15, 16) and not first.has(3)
        if (
            is_one
            and second.name == "cmp"
            and (second.number(1), second.number(2)) == (register, 0)
        ):
            return key, second.value
        return None


@dataclass
class Element:
    """One element of a set; an interval has two elements, unless keys are concatenated."""

    key: bytes
    value: bytes = b""
    """The value of a data map's element."""
    verdict: Verdict | None = None
    is_end: bool = False
    packets: int | None = None
    """The counted packets; None if it has no counter."""
    expires_at: float = 0.0
    """The time at which the element expires; 0 for never."""
    last_key: bytes = b""
    """The end of an interval of a concatenated key, whose fields are intervals themselves."""

    def has(self, key: bytes) -> bool:
        """Return whether each field of a key is in this interval."""
        last = self.last_key or self.key
        words = (slice(at, at + 4) for at in range(0, len(key), 4))
        return all(self.key[word] <= key[word] <= last[word] for word in words)

    @property
    def place(self) -> tuple[bytes, bool]:
        """The key that identifies an element within its set."""
        return self.key, self.is_end

    def has_same_value(self, other: Element) -> bool:
        return (self.value, self.verdict) == (other.value, other.verdict)


@dataclass
class NftSet:
    """One set or map."""

    name: str
    flags: int
    key_type: int
    key_bytes: int
    data_type: int = 0
    data_bytes: int = 0
    number: int = 0
    """The ID by which messages of its transaction refer to it."""
    size: int = 0
    counts: bool = False
    user_data: bytes = b""
    elements: dict[tuple[bytes, bool], Element] = field(default_factory=dict)

    @property
    def is_anonymous(self) -> bool:
        return bool(self.flags & ANONYMOUS)

    def copy(self) -> NftSet:
        return replace(self, elements=dict(self.elements))


@dataclass
class Chain:
    """One chain; a base chain has a hook."""

    name: str
    handle: int
    hook: int | None = None
    priority: int = 0
    kind: str = ""
    policy: int = ACCEPT
    rules: list[Rule] = field(default_factory=list)
    order: int = 0
    """Its number in the order in which the ruleset's chains were added."""

    def copy(self) -> Chain:
        return replace(self, rules=list(self.rules))


@dataclass
class Table:
    """A table of a family."""

    family: int
    name: str
    flags: int = 0
    owner: int = 0
    """The port ID of the socket that owns it; 0 for none."""
    chains: dict[str, Chain] = field(default_factory=dict)
    sets: dict[str, NftSet] = field(default_factory=dict)
    handles: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def copy(self) -> Table:
        return replace(
            self,
            chains={name: chain.copy() for name, chain in self.chains.items()},
            sets={name: one.copy() for name, one in self.sets.items()},
        )

    def uses(self, chain: str) -> int:
        """Return the number of rules and elements that jump or go to a chain."""
        by_rules = sum(
            one.verdict is not None and one.verdict.chain == chain
            for rule in self.rules()
            for one in rule.expressions
        )
        return by_rules + sum(
            element.verdict is not None and element.verdict.chain == chain
            for one in self.sets.values()
            for element in one.elements.values()
        )

    def uses_of_set(self, name: str) -> int:
        """Return the number of rules that look up or change a set."""
        return sum(one.set_name == name for rule in self.rules() for one in rule.expressions)

    def rules(self) -> Iterator[Rule]:
        for chain in self.chains.values():
            yield from chain.rules


Place = tuple[int, str]
"""The family and the name of a table."""


class Ruleset:
    """All tables of a network namespace, or a transaction's copy of them."""

    def __init__(self) -> None:
        self.tables: dict[Place, Table] = {}
        self.generation = 1
        self.orders = itertools.count(1)

    def copy(self) -> Ruleset:
        """Return a copy with the same tables; a transaction copies each table that it changes."""
        other = Ruleset()
        other.tables = dict(self.tables)
        other.generation = self.generation
        other.orders = self.orders
        return other

    def of_family(self, family: int) -> list[Table]:
        """Return the tables of a family; all tables for family 0."""
        return [one for one in self.tables.values() if family in (0, one.family)]

    def text(self, *, without: Callable[[str], bool]) -> list[str]:
        """Return the tables as lines; omit tables that ``without`` accepts, pins and counters."""
        lines = []
        for (family, name), table in sorted(self.tables.items()):
            if without(name):
                continue
            lines.append(f"table {family} {name} {table.flags}")
            for one in table.sets.values():
                keys = (
                    []
                    if one.flags & DYNAMIC
                    else sorted(
                        (e.key.hex(), e.is_end, e.value.hex(), str(e.verdict))
                        for e in one.elements.values()
                    )
                )
                lines.append(f"set {one.name} {one.flags} {one.key_type} {keys}")
            for chain in table.chains.values():
                head = (chain.name, chain.hook, chain.priority, chain.kind, chain.policy)
                lines.append(f"chain {head}")
                lines += [f"  rule {rule.expressions}" for rule in chain.rules]
        return lines
