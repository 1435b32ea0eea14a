"""Listings of nf_tables in the kernel's format.

Source: net/netfilter/nf_tables_api.c, nf_tables_fill_*().
"""

from __future__ import annotations

from . import netlink_wire as wire
from .nf_tables_batch import (
    GET_CHAIN,
    GET_ELEMENT,
    GET_RULE,
    GET_SET,
    GET_TABLE,
    NEW_CHAIN,
    NEW_ELEMENT,
    NEW_GENERATION,
    NEW_RULE,
    NEW_SET,
    NEW_TABLE,
)
from .nf_tables_state import (
    VERDICTS,
    Chain,
    Element,
    Expression,
    NftSet,
    Rule,
    Ruleset,
    Table,
    Verdict,
)

Bodies = list[tuple[int, bytes]]


class Absent(Exception):
    """The object to list doesn't exist."""


def items(
    ruleset: Ruleset, kind: int, family: int, found: dict[int, bytes], now: float, elements: int
) -> Bodies:
    """Return the kinds and bodies of a listing's messages.

    Args:
        elements: The maximum number of elements per message.
    """
    if kind == GET_TABLE:
        return [(NEW_TABLE, _table(table)) for table in ruleset.of_family(family)]
    table_name = wire.name(found.get(1))
    tables = [one for one in ruleset.of_family(family) if table_name in ("", one.name)]
    if kind == GET_CHAIN:
        return [(NEW_CHAIN, _chain(t, chain)) for t in tables for chain in t.chains.values()]
    if kind == GET_RULE:
        wanted = wire.name(found.get(2))
        return [
            (NEW_RULE, _rule(table, chain, rule))
            for table in tables
            for chain in table.chains.values()
            if wanted in ("", chain.name)
            for rule in chain.rules
        ]
    if table_name and not tables:
        raise Absent
    if kind == GET_SET:
        return [(NEW_SET, _set(t, one)) for t in tables for one in t.sets.values()]
    assert kind == GET_ELEMENT, hex(kind)
    if not tables or (one := tables[0].sets.get(wire.name(found.get(2)))) is None:
        raise Absent
    listed = [
        element
        for element in one.elements.values()
        if not element.expires_at or element.expires_at > now
    ]
    return [
        (NEW_ELEMENT, _elements(tables[0], one, listed[start : start + elements]))
        for start in range(0, len(listed), elements)
    ]


def generation(ruleset: Ruleset) -> bytes:
    """Return the body of the message that contains the generation."""
    body = wire.netfilter(0, ruleset.generation & 0xFFFF) + wire.be32(1, ruleset.generation)
    return body + wire.be32(2, 1) + wire.string(3, "another")


def event(kind: int, family: int, table: str) -> bytes:
    """Return the body of an event about a table."""
    del kind
    return wire.netfilter(family) + wire.string(1, table)


def _head(table: Table) -> bytes:
    return wire.netfilter(table.family) + wire.string(1, table.name)


def _table(table: Table) -> bytes:
    body = _head(table) + wire.be32(2, table.flags) + wire.be32(3, len(table.chains))
    return body + (wire.be32(7, table.owner) if table.owner else b"")


def _chain(table: Table, chain: Chain) -> bytes:
    body = _head(table) + wire.be64(2, chain.handle) + wire.string(3, chain.name)
    if chain.hook is not None:
        body += wire.nest(4, wire.be32(1, chain.hook), wire.be32(2, chain.priority))
        body += wire.be32(5, chain.policy) + wire.string(7, chain.kind) + wire.be32(10, 1)
    return body + wire.be32(6, len(chain.rules))


def _rule(table: Table, chain: Chain, rule: Rule) -> bytes:
    body = _head(table) + wire.string(2, chain.name) + wire.be64(3, rule.handle)
    if not rule.packed:
        rule.packed.append(wire.nest(4, *map(_expression, rule.expressions)))
    return body + rule.packed[0]


def _expression(one: Expression) -> bytes:
    if not one.packed:
        attributes = (wire.attribute(kind, value) for kind, value in _as_listed(one))
        one.packed.append(wire.nest(1, wire.string(1, one.name), wire.nest(2, *attributes)))
    return one.packed[0]


_REGISTERS = {
    "lookup": (2, 3), "numgen": (1,), "immediate": (1,), "nat": (3, 5, 6), "hash": (1, 2),
    "dynset": (4,), "meta": (1, 3), "payload": (1, 5), "ct": (1,), "fib": (1,), "socket": (2,),
}  # fmt: skip
_FIRST_PART = 8


def _as_listed(one: Expression) -> list[tuple[int, bytes]]:
    """Return attributes as the kernel lists them, which may differ from the sent attributes."""
    found = dict(one.attributes)
    for kind in _REGISTERS.get(one.name, ()):
        part = wire.number(found.get(kind)) - _FIRST_PART
        # A 16-byte register has a separate number.
        if part >= 0 and part % 4 == 0:
            found[kind] = (part // 4 + 1).to_bytes(4, "big")
    nothing = bytes(4)
    match one.name:
        case "nat":
            flags = 1 if 5 not in found else 3 | wire.number(found.get(7))
            found |= {4: found.get(4, found[3]), 7: flags.to_bytes(4, "big")}
            if 5 in found:
                found[6] = found.get(6, found[5])
        case "redir":
            found[2] = found[1]
        case "bitwise":
            found[6] = nothing
        case "dynset":
            found[9] = nothing
            if 7 in found:
                found[7] = _counter(7, 0)[4:]
        case "hash" if found.get(6) == nothing:
            del found[6]
        case _:
            pass
    return sorted(found.items())


def _set(table: Table, one: NftSet) -> bytes:
    body = _head(table) + wire.string(2, one.name) + wire.be64(16, 1)
    if one.flags:
        body += wire.be32(3, one.flags)
    body += wire.be32(4, one.key_type) + wire.be32(5, one.key_bytes)
    if one.data_type:
        # A verdict has the size of the kernel's own structure.
        width = 16 if one.data_type == VERDICTS else one.data_bytes
        body += wire.be32(6, one.data_type) + wire.be32(7, width)
    if one.user_data:
        body += wire.attribute(13, one.user_data)
    body += wire.nest(9, wire.be32(1, one.size)) if one.size else wire.nest(9)
    return body + (_counter(17, 0) if one.counts else b"")


def _counter(kind: int, packets: int) -> bytes:
    data = wire.nest(2, wire.be64(1, packets * 60), wire.be64(2, packets))
    return wire.nest(kind, wire.string(1, "counter"), data)


def _elements(table: Table, of: NftSet, some: list[Element]) -> bytes:
    place = _head(table) + wire.string(2, of.name)
    return place + wire.nest(3, *(_element(of, one) for one in some))


def _element(of: NftSet, one: Element) -> bytes:
    parts = [wire.nest(1, wire.attribute(1, one.key))]
    if one.last_key:
        parts.append(wire.nest(10, wire.attribute(1, one.last_key)))
    if one.verdict is not None:
        parts.append(wire.nest(2, wire.nest(2, _verdict(one.verdict))))
    elif of.data_type and not one.is_end:
        parts.append(wire.nest(2, wire.attribute(1, one.value)))
    if one.is_end:
        parts.append(wire.be32(3, 1))
    if one.packets is not None:
        parts.append(_counter(7, one.packets))
    return wire.nest(1, *parts)


def _verdict(verdict: Verdict) -> bytes:
    packed = wire.be32(1, verdict.code)
    return packed + (wire.string(2, verdict.chain) if verdict.chain else b"")


def new_generation(ruleset: Ruleset) -> tuple[int, bytes]:
    """Return the kind and body of the event that ends a transaction."""
    return NEW_GENERATION, generation(ruleset)
