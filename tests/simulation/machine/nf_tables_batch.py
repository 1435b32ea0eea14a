"""A transaction of nf_tables: its messages change a copy, which replaces the ruleset or is dropped.

Source: net/netfilter/nf_tables_api.c.
"""

from __future__ import annotations

import errno
import functools
from collections.abc import Callable, Collection, Iterator
from typing import NamedTuple

from . import netlink_wire as wire
from .nf_tables_state import (
    ACCEPT,
    ANONYMOUS,
    CONCATENATED,
    CONSTANT,
    DYNAMIC,
    GOTO,
    INPUT,
    INTERVAL,
    JUMP,
    MAP,
    OUTPUT,
    OWNED,
    POSTROUTING,
    PREROUTING,
    TIMEOUT,
    VERDICTS,
    Chain,
    Element,
    Expression,
    NftSet,
    Rule,
    Ruleset,
    Table,
    Verdict,
    read_verdict,
)

(
    NEW_TABLE, GET_TABLE, DELETE_TABLE, NEW_CHAIN, GET_CHAIN, DELETE_CHAIN, NEW_RULE, GET_RULE,
    DELETE_RULE, NEW_SET, GET_SET, DELETE_SET, NEW_ELEMENT, GET_ELEMENT, DELETE_ELEMENT,
    NEW_GENERATION, GET_GENERATION,
) = range(0xA00, 0xA11)  # fmt: skip
_SET_FLAGS = ANONYMOUS | CONSTANT | INTERVAL | MAP | TIMEOUT | DYNAMIC | CONCATENATED
_DEPTH_MAX = 16
_KINDS = ("filter", "nat", "route")
# NF_IP_PRI_CONNTRACK: nat chains must have a higher priority value.
_TRACKING = -200
# The hooks where each translating or refusing expression is allowed, and the chain type that it
# requires.
_HOOKS = {
    "redir": ("nat", (PREROUTING, OUTPUT)),
    "masq": ("nat", (POSTROUTING,)),
    "nat": ("nat", (PREROUTING, INPUT, OUTPUT, POSTROUTING)),
    "reject": ("", (PREROUTING, INPUT, 2, OUTPUT)),
    "tproxy": ("", (PREROUTING,)),
}


class Refusal(Exception):
    """The kernel's refusal of a message, with an error number."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class Event(NamedTuple):
    """A change by a transaction, of which programs that watch are notified."""

    kind: int
    family: int
    table: str


class Transaction:
    """The changes of one datagram of a program.

    Args:
        ruleset: The current ruleset; it isn't changed.
        owner: The port ID of the program's socket.
        lacks: Names of expressions that this kernel lacks.
    """

    def __init__(self, ruleset: Ruleset, owner: int, lacks: Collection[str] = ()) -> None:
        self.ruleset = ruleset.copy()
        self.events: list[Event] = []
        self._owner = owner
        self._lacks = lacks
        self._own: set[tuple[int, str]] = set()
        self._new_sets: dict[int, NftSet] = {}
        self._handlers: dict[int, Callable[[wire.Request, int, dict[int, bytes]], None]] = {
            NEW_TABLE: self._new_table,
            DELETE_TABLE: self._delete_table,
            NEW_CHAIN: self._new_chain,
            DELETE_CHAIN: self._delete_chain,
            NEW_RULE: self._new_rule,
            DELETE_RULE: self._delete_rule,
            NEW_SET: self._new_set,
            DELETE_SET: self._delete_set,
            NEW_ELEMENT: self._new_elements,
            DELETE_ELEMENT: self._delete_elements,
        }

    def apply(self, request: wire.Request) -> int:
        """Handle one message; return an error number, or 0."""
        handler = self._handlers.get(request.kind)
        if handler is None or len(request.body) < wire.NETFILTER_BYTES:
            return errno.EINVAL
        family = request.body[0]
        try:
            handler(request, family, wire.table_of(request.body, wire.NETFILTER_BYTES))
        except Refusal as exc:
            return exc.code
        return 0

    def validate(self) -> int:
        """Return the error number with which the whole transaction is refused; 0 if it isn't."""
        for place in self._own & self.ruleset.tables.keys():
            table = self.ruleset.tables[place]
            for chain in table.chains.values():
                if chain.hook is not None and (code := _follow(table, chain, chain, 0)):
                    return code
        return 0

    def _note(self, request: wire.Request, table: Table) -> None:
        self.events.append(Event(request.kind, table.family, table.name))

    def _look_up(self, family: int, name: str, *, to_change: bool = True) -> Table:
        """Return a table, which is copied for this transaction if it is to be changed."""
        place = family, name
        table = self.ruleset.tables.get(place)
        if table is None:
            raise Refusal(errno.ENOENT)
        if table.owner and table.owner != self._owner:
            raise Refusal(errno.EPERM)
        if to_change and place not in self._own:
            self._own.add(place)
            table = self.ruleset.tables[place] = table.copy()
        return table

    def _new_table(self, request: wire.Request, family: int, found: dict[int, bytes]) -> None:
        name, flags = wire.name(found.get(1)), wire.number(found.get(2))
        if not name:
            raise Refusal(errno.EINVAL)
        if (family, name) in self.ruleset.tables:
            table = self._look_up(family, name)
            if request.flags & wire.F_EXCLUSIVE:
                raise Refusal(errno.EEXIST)
            if 2 in found and flags != table.flags:
                if table.flags & OWNED:
                    raise Refusal(errno.EOPNOTSUPP)
                table.flags, table.owner = flags, self._owner if flags & OWNED else 0
                self._note(request, table)
            return
        if flags & OWNED and "owner" in self._lacks:
            raise Refusal(errno.EINVAL)
        table = Table(family, name, flags, self._owner if flags & OWNED else 0)
        self._own.add((family, name))
        self.ruleset.tables[family, name] = table
        self._note(request, table)

    def _delete_table(self, request: wire.Request, family: int, found: dict[int, bytes]) -> None:
        if 1 in found:
            tables = [self._look_up(family, wire.name(found[1]))]
        else:
            # Tables that other sockets own aren't deleted.
            tables = [
                one for one in self.ruleset.of_family(family) if one.owner in (0, self._owner)
            ]
        for table in tables:
            del self.ruleset.tables[table.family, table.name]
            self._note(request, table)

    def _new_chain(self, request: wire.Request, family: int, found: dict[int, bytes]) -> None:
        table, name = self._look_up(family, wire.name(found.get(1))), wire.name(found.get(3))
        if name in table.chains:
            if request.flags & wire.F_EXCLUSIVE:
                raise Refusal(errno.EEXIST)
            if 5 in found:
                table.chains[name].policy = wire.number(found[5])
                self._note(request, table)
            return
        chain = Chain(name, next(table.handles), order=next(self.ruleset.orders))
        if 4 in found:
            at = wire.table_of(found[4])
            chain.kind = wire.name(found.get(7)) or "filter"
            chain.hook, chain.priority = wire.number(at.get(1)), wire.signed(at.get(2))
            chain.policy = wire.number(found[5]) if 5 in found else ACCEPT
            if chain.kind not in _KINDS:
                raise Refusal(errno.ENOENT)
            is_late = chain.kind == "nat" and (chain.priority <= _TRACKING or chain.hook == 2)
            if is_late or (chain.kind == "route" and chain.hook != OUTPUT):
                raise Refusal(errno.EOPNOTSUPP)
        table.chains[name] = chain
        self._note(request, table)

    def _delete_chain(self, request: wire.Request, family: int, found: dict[int, bytes]) -> None:
        table = self._look_up(family, wire.name(found.get(1)))
        if 3 not in found:
            raise Refusal(errno.EOPNOTSUPP)
        chain = table.chains.get(wire.name(found[3]))
        if chain is None:
            raise Refusal(errno.ENOENT)
        self._remove_rules(table, chain, chain.rules)
        if table.uses(chain.name):
            raise Refusal(errno.EBUSY)
        del table.chains[chain.name]
        self._note(request, table)

    def _new_rule(self, request: wire.Request, family: int, found: dict[int, bytes]) -> None:
        table = self._look_up(family, wire.name(found.get(1)))
        chain = table.chains.get(wire.name(found.get(2)))
        if chain is None:
            raise Refusal(errno.ENOENT)
        if 3 in found or not request.flags & wire.F_CREATE:
            raise Refusal(errno.EINVAL)
        expressions = tuple(
            self._expression(table, packed) for _, packed in wire.attributes(found.get(4, b""))
        )
        rule = Rule(next(table.handles), expressions, found.get(7, b""))
        at = len(chain.rules) if request.flags & wire.F_APPEND else 0
        chain.rules.insert(at, rule)
        self._note(request, table)

    def _expression(self, table: Table, packed: bytes) -> Expression:
        parts = wire.table_of(packed)
        name = wire.name(parts.get(1))
        if name in self._lacks or name not in KNOWN:
            raise Refusal(errno.ENOENT)
        one = _read_expression(name, parts.get(2, b""))
        if name == "lookup":
            one = self._bound(table, one)
        elif name == "dynset":
            changed = table.sets.get(one.set_name)
            if changed is None:
                raise Refusal(errno.ENOENT)
            if not changed.flags & DYNAMIC:
                raise Refusal(errno.EOPNOTSUPP)
        if (verdict := one.verdict) is not None:
            _check_verdict(table, verdict)
        return one

    def _bound(self, table: Table, one: Expression) -> Expression:
        """Return a lookup that names its set; the message may contain the set's ID instead."""
        found = table.sets.get(one.set_name) or self._new_sets.get(one.number(4))
        if found is None or found.name not in table.sets:
            raise Refusal(errno.ENOENT)
        is_inverted = one.number(5) & 1
        if one.has(3) and (is_inverted or not found.flags & MAP):
            raise Refusal(errno.EINVAL)
        if not one.has(3) and found.flags & MAP and found.is_anonymous:
            raise Refusal(errno.EINVAL)
        is_to_verdict = one.has(3) and one.number(3) == 0
        if one.has(3) and is_to_verdict != (found.data_type == VERDICTS):
            raise Refusal(errno.EINVAL)
        to = one.get(3) if one.has(3) else None
        return _read_look_up(found.name, one.get(2), to, one.number(5))

    def _delete_rule(self, request: wire.Request, family: int, found: dict[int, bytes]) -> None:
        table = self._look_up(family, wire.name(found.get(1)))
        chains = list(table.chains.values())
        if 2 in found:
            chain = table.chains.get(wire.name(found[2]))
            if chain is None:
                raise Refusal(errno.ENOENT)
            chains = [chain]
        handle = wire.number(found.get(3))
        gone = 0
        for chain in chains:
            rules = [rule for rule in chain.rules if handle in (0, rule.handle)]
            gone += len(rules)
            self._remove_rules(table, chain, rules)
        if handle and not gone:
            raise Refusal(errno.ENOENT)
        if gone:
            self._note(request, table)

    def _remove_rules(self, table: Table, chain: Chain, rules: list[Rule]) -> None:
        gone = {rule.handle for rule in rules}
        for one in [e for rule in rules for e in rule.expressions if e.set_name]:
            bound = table.sets.get(one.set_name)
            if bound is not None and bound.is_anonymous:
                del table.sets[one.set_name]
        chain.rules = [rule for rule in chain.rules if rule.handle not in gone]

    def _new_set(self, request: wire.Request, family: int, found: dict[int, bytes]) -> None:
        table, name = self._look_up(family, wire.name(found.get(1))), wire.name(found.get(2))
        flags = wire.number(found.get(3))
        if not name or 5 not in found or flags & ~_SET_FLAGS:
            raise Refusal(errno.EINVAL if not flags & ~_SET_FLAGS else errno.EOPNOTSUPP)
        if 17 in found and "set counter" in self._lacks:
            raise Refusal(errno.EOPNOTSUPP)
        if name in table.sets:
            if request.flags & wire.F_EXCLUSIVE:
                raise Refusal(errno.EEXIST)
            return
        if "%d" in name:
            taken = table.sets.keys()
            name = next(
                n for n in (name.replace("%d", str(i)) for i in range(9999)) if n not in taken
            )
        made = NftSet(
            name,
            flags,
            wire.number(found.get(4)),
            wire.number(found[5]),
            wire.number(found.get(6)),
            wire.number(found.get(7)),
            wire.number(found.get(10)),
            wire.number(wire.table_of(found.get(9, b"")).get(1)),
            17 in found and "element counter" not in self._lacks,
            found.get(13, b""),
        )
        table.sets[name] = self._new_sets[made.number] = made
        self._note(request, table)

    def _delete_set(self, request: wire.Request, family: int, found: dict[int, bytes]) -> None:
        table = self._look_up(family, wire.name(found.get(1)))
        name = wire.name(found.get(2))
        if name not in table.sets:
            raise Refusal(errno.ENOENT)
        if table.uses_of_set(name):
            raise Refusal(errno.EBUSY)
        del table.sets[name]
        self._note(request, table)

    def _set_of(self, family: int, found: dict[int, bytes]) -> tuple[Table, NftSet]:
        table = self._look_up(family, wire.name(found.get(1)))
        named = table.sets.get(wire.name(found.get(2))) or self._new_sets.get(
            wire.number(found.get(4))
        )
        if named is None or named.name not in table.sets:
            raise Refusal(errno.ENOENT)
        if named.flags & (ANONYMOUS | CONSTANT) and table.uses_of_set(named.name):
            raise Refusal(errno.EBUSY)
        return table, named

    def _new_elements(self, request: wire.Request, family: int, found: dict[int, bytes]) -> None:
        table, changed = self._set_of(family, found)
        for element in _elements(found.get(3, b""), changed, is_new=True):
            if element.verdict is not None:
                _check_verdict(table, element.verdict)
            there = changed.elements.get(element.place)
            if there is None:
                if changed.size and len(changed.elements) >= changed.size:
                    raise Refusal(errno.ENFILE)
                changed.elements[element.place] = element
                self._note(request, table)
            elif not there.has_same_value(element) or request.flags & wire.F_EXCLUSIVE:
                raise Refusal(errno.EEXIST)

    def _delete_elements(self, request: wire.Request, family: int, found: dict[int, bytes]) -> None:
        table, changed = self._set_of(family, found)
        if 3 not in found:
            if changed.elements:
                self._note(request, table)
            changed.elements.clear()
        for element in _elements(found.get(3, b""), changed, is_new=False):
            if changed.elements.pop(element.place, None) is None:
                raise Refusal(errno.ENOENT)
            self._note(request, table)


KNOWN = frozenset({
    "meta", "ct", "payload", "socket", "exthdr", "fib", "cmp", "bitwise", "lookup", "immediate",
    "redir", "nat", "masq", "reject", "tproxy", "notrack", "numgen", "hash", "dynset", "counter",
})  # fmt: skip


# Cost: programs write the same expressions repeatedly.
_MOST_KEPT = 10_000


@functools.lru_cache(_MOST_KEPT)
def _read_expression(name: str, packed: bytes) -> Expression:
    """Return an expression with its attributes as the kernel lists them."""
    attributes = tuple(wire.attributes(packed))
    one = Expression(name, attributes)
    if name == "reject" and one.number(1) == 1:
        # A reject with RST has no code.
        one = Expression(name, tuple(a for a in attributes if a[0] != 2))
    return one


@functools.lru_cache(_MOST_KEPT)
def _read_look_up(set_name: str, register: bytes, to: bytes | None, flags: int) -> Expression:
    """Return a lookup in a set, as the kernel lists it."""
    kept = [(1, set_name.encode() + b"\0"), (2, register)]
    kept += [] if to is None else [(3, to)]
    return Expression("lookup", (*kept, (5, flags.to_bytes(4, "big"))))


def _check_verdict(table: Table, verdict: Verdict) -> None:
    if verdict.code in (JUMP, GOTO):
        chain = table.chains.get(verdict.chain)
        if chain is None:
            raise Refusal(errno.ENOENT)
        if chain.hook is not None:
            raise Refusal(errno.EOPNOTSUPP)


def _elements(packed: bytes, of: NftSet, *, is_new: bool) -> Iterator[Element]:
    for _, one in wire.attributes(packed):
        found = wire.table_of(one)
        key = wire.table_of(found.get(1, b"")).get(1, b"")
        if len(key) != of.key_bytes:
            raise Refusal(errno.EINVAL)
        is_end = bool(wire.number(found.get(3)) & 1)
        data = wire.table_of(found.get(2, b""))
        verdict = read_verdict(data.get(2))
        if is_new and not is_end:
            has_data = bool(data)
            is_verdict = of.data_type == VERDICTS
            if has_data != bool(of.flags & MAP) or (has_data and is_verdict != (2 in data)):
                raise Refusal(errno.EINVAL)
            if has_data and not is_verdict and len(data.get(1, b"")) != of.data_bytes:
                raise Refusal(errno.EINVAL)
        last = wire.table_of(found.get(10, b"")).get(1, b"")
        if last and (len(last) != of.key_bytes or not of.flags & CONCATENATED):
            raise Refusal(errno.EINVAL)
        packets = 0 if of.counts else None
        yield Element(key, data.get(1, b""), verdict, is_end, packets=packets, last_key=last)


def _follow(table: Table, base: Chain, chain: Chain, depth: int) -> int:
    """Return the error number of the chains below a base chain; 0 if they are valid."""
    if depth >= _DEPTH_MAX:
        return errno.EMLINK
    for rule in chain.rules:
        for one in rule.expressions:
            kind, hooks = _HOOKS.get(one.name, ("", None))
            if hooks is not None and (base.hook not in hooks or kind not in ("", base.kind)):
                return errno.EOPNOTSUPP
            for verdict in _verdicts(table, one):
                if verdict.code in (JUMP, GOTO):
                    to = table.chains[verdict.chain]
                    if code := _follow(table, base, to, depth + 1):
                        return code
    return 0


def _verdicts(table: Table, one: Expression) -> Iterator[Verdict]:
    if (verdict := one.verdict) is not None:
        yield verdict
    elif one.name == "lookup" and one.has(3) and one.number(3) == 0:
        for element in table.sets[one.set_name].elements.values():
            if element.verdict is not None:
                yield element.verdict
