"""Parses the parts of nftables rules that determine a packet's verdict.

    [ ct load status ] [ bitwise & 0x20 ] [ cmp neq 0 ] [ immediate accept ]
    ──▶ Step(ACCEPT, (Match(TRANSLATED, ("dnat",)),))

Rule 1: an unknown condition is ``Unknown``. A look-up of fields of known width is a ``SetLookup``,
which ``reading`` replaces by the set's elements.

Source: include/uapi/linux/netfilter/nf_tables.h, nf_tables_compat.h and xt_conntrack.h; nft(8)
for the words.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import struct
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from ..kernel.netlink.messages import number_in, read_all, text_in
from ..kernel.nf_tables import expressions as x
from ..kernel.nf_tables.reader import Expression
from .chains import LEADS, RuleVerdict, Step
from .matches import (
    ADDRESSES,
    DRAWN,
    LOOPBACK,
    PORTS,
    Bits,
    Condition,
    Conditions,
    LoadedField,
    Match,
    MatchField,
    Ports,
    SetLookup,
    Unknown,
    Value,
    states,
)

# The fields whose elements in sets can all be parsed, as an inverted look-up requires.
_INVERTIBLE = (*ADDRESSES, *PORTS, MatchField.WAY_IN)
# Loaded fields, keyed by expression, key or base, offset, and width. A rule that compares an
# address prefix loads fewer bytes.
_FIELDS: Mapping[tuple[str | int, ...], LoadedField] = {
    ("meta", 15, 0, 0): LoadedField(MatchField.FAMILY),
    ("meta", 16, 0, 0): LoadedField(MatchField.PROTOCOL, 1),
    ("meta", 4, 0, 0): LoadedField(MatchField.WAY_IN, 4),
    ("meta", 6, 0, 0): LoadedField(MatchField.WAY_IN, 16, is_name=True),
    ("meta", 5, 0, 0): LoadedField(MatchField.WAY_OUT, 4),
    ("meta", 7, 0, 0): LoadedField(MatchField.WAY_OUT, 16, is_name=True),
    # The result NFT_FIB_RESULT_ADDRTYPE, with NFTA_FIB_F_DADDR.
    ("fib", 3, 2, 0): LoadedField(MatchField.TO_THIS_NODE),
    ("ct", 0, 0, 0): LoadedField(MatchField.STATE, 4),
    ("ct", 2, 0, 0): LoadedField(MatchField.TRANSLATED),
    ("ct", 9, 0, 0): LoadedField(MatchField.DIALLED_ADDRESS, 4),
    ("ct", 20, 0, 0): LoadedField(MatchField.DIALLED_ADDRESS, 4),
    ("ct", 22, 0, 0): LoadedField(MatchField.DIALLED_ADDRESS, 16),
    ("ct", 12, 0, 0): LoadedField(MatchField.DIALLED_PORT),
    ("payload", 1, 12): LoadedField(MatchField.SOURCE, 4),
    ("payload", 1, 8): LoadedField(MatchField.SOURCE, 16),
    ("payload", 1, 16): LoadedField(MatchField.DESTINATION, 4),
    ("payload", 1, 24): LoadedField(MatchField.DESTINATION, 16),
    ("payload", 1, 9, 1): LoadedField(MatchField.PROTOCOL, 1),
    ("payload", 2, 0, 2): LoadedField(MatchField.SOURCE_PORT),
    ("payload", 2, 2, 2): LoadedField(MatchField.DESTINATION_PORT, 2),
    ("payload", 2, 13, 1): LoadedField(MatchField.TCP_FLAGS),
}
_NUMBERS = (*PORTS, MatchField.DIALLED_PORT, MatchField.PROTOCOL)
# The name and the index of the loopback interface, which is the first one in each namespace.
_LOOPBACK = {True: b"lo\0", False: (1).to_bytes(4, sys.byteorder)}
# An interface's name, in which a final asterisk matches any characters.
_LINK = re.compile(r"[\w.@:-]+\*?")
_VERDICTS = {
    x.ACCEPT: RuleVerdict.ACCEPT,
    x.DROP: RuleVerdict.DROP,
    x.RETURN: RuleVerdict.RETURN,
    x.JUMP: RuleVerdict.JUMP,
    x.GOTO: RuleVerdict.GOTO,
}
# The expressions that translate addresses in a nat chain.
_TRANSLATIONS = {"nat", "redir", "DNAT", "REDIRECT"}
_NAMED = {
    "reject": RuleVerdict.REJECT,
    "REJECT": RuleVerdict.REJECT,
    **dict.fromkeys(("queue", "synproxy", "NFQUEUE", "SYNPROXY", "TPROXY"), RuleVerdict.QUEUE),
    **dict.fromkeys(("masq", "SNAT", "MASQUERADE", "NETMAP"), RuleVerdict.SNAT),
    "notrack": RuleVerdict.NOTRACK,
}
_LIMITS = {"limit", "hashlimit", "connlimit"}
_MAY_DECIDE = {"immediate", "lookup", "target", *_TRANSLATIONS, *_NAMED}
_NO_VERDICT = (RuleVerdict.NONE, "")
_STATES = {
    x.STATE_INVALID: "invalid",
    x.STATE_ESTABLISHED: "established",
    x.STATE_RELATED: "related",
    x.STATE_NEW: "new",
}
_PROTOCOLS = {socket.IPPROTO_TCP: "tcp", socket.IPPROTO_UDP: "udp"}
# struct xt_conntrack_mtinfo3; XT_CONNTRACK_STATE is bit 0 of match_flags.
_CONNTRACK = struct.Struct("=32x16s16s76xH4x3H4xH4x")
_STATE, _DIALLED_ADDRESS, _DIALLED_PORT = 1, 1 << 3, 1 << 9
# XT_CONNTRACK_STATE_ALIAS, of ``-m state``, which has no effect.
_ALIAS = 1 << 13
# XT_CONNTRACK_STATE_INVALID, XT_CONNTRACK_STATE_BIT() and XT_CONNTRACK_STATE_DNAT.
_XT_STATES = {
    1: "invalid",
    1 << 1: "established",
    1 << 2: "related",
    1 << 3: "new",
    1 << 7: "dnat",
}
# struct xt_addrtype_info_v1; a mask of route types, and XT_ADDRTYPE_INVERT_DEST.
_ADDRTYPE = struct.Struct("=HHI")
_INVERT_DEST = 2
_MULTIPORT = struct.Struct("=BB15H15BB")
# The fields of XT_MULTIPORT_SOURCE and XT_MULTIPORT_DESTINATION.
_MULTIPORT_FIELDS = (MatchField.SOURCE_PORT, MatchField.DESTINATION_PORT)
# XT_CT_NOTRACK, in struct xt_ct_target_info.
_NOTRACK = 1
# struct nf_nat_ipv4_multi_range_compat with one range, and nf_nat_range: the targets' revisions.
_RANGE_0, _RANGE = struct.Struct("=8x4s4s"), struct.Struct("=4x16s16s")
# XT_SOCKET_TRANSPARENT, in struct xt_socket_mtinfo1.
_TRANSPARENT = 1


def read_step(expressions: Sequence[Expression]) -> Step | None:
    """Return a rule's conditions and verdict; None if it has no verdict."""
    for at, one in enumerate(expressions):
        verdict, target = _verdict(one)
        if verdict is RuleVerdict.SNAT:
            target = _source(one, expressions[:at])
        if verdict:
            return Step(verdict, _all_conditions(expressions), target)
    return None


def _verdict(one: Expression) -> tuple[RuleVerdict, str]:
    if one.name not in _MAY_DECIDE:
        return _NO_VERDICT
    found = one.attributes()
    if one.name == "immediate":
        return verdict_of(found.get(2, b""))
    if one.name == "lookup" and 3 in found and not number_in(found, 3):
        # Register 0 holds the verdict, so the look-up is in a verdict map.
        return RuleVerdict.MAP, ""
    name = text_in(found, 1) if one.name == "target" else one.name
    if name in _TRANSLATIONS:
        is_source = one.name == "nat" and number_in(found, 1) == 0
        return (RuleVerdict.SNAT if is_source else RuleVerdict.TRANSLATE), ""
    if name == "CT" and found.get(3, b"")[:1] and found[3][0] & _NOTRACK:
        return RuleVerdict.NOTRACK, ""
    return _NAMED.get(name, RuleVerdict.NONE), ""


def _source(one: Expression, before: Sequence[Expression]) -> str:
    """Return the literal address that a rule gives packets as their source; empty if unknown."""
    found = one.attributes()
    loads = (each.attributes() for each in before if each.name == "immediate")
    loaded = {number_in(load, 1): _data(load, 2) for load in loads}
    first, last = (loaded.get(number_in(found, register), b"") for register in (3, 4))
    if one.name == "target":
        layout = _RANGE if number_in(found, 2) else _RANGE_0
        first, last = layout.unpack_from(found.get(3, b"").ljust(layout.size, bytes(1)))
    is_one = first == last and len(first) in (4, 16)
    return str(ipaddress.ip_address(first if any(first[4:]) else first[:4])) if is_one else ""


def verdict_of(data: bytes) -> tuple[RuleVerdict, str]:
    """Return the verdict in data attributes, and the target chain of a jump or goto."""
    value = read_all(read_all(data).get(x.DATA_VERDICT, b""))
    if not value:
        return _NO_VERDICT
    verdict = _VERDICTS.get(number_in(value, x.VERDICT_CODE, is_signed=True), RuleVerdict.NONE)
    return verdict, text_in(value, x.VERDICT_CHAIN) if verdict in LEADS else ""


def _all_conditions(expressions: Sequence[Expression]) -> Conditions:
    """Return all conditions, each once."""
    return tuple(dict.fromkeys(_conditions(expressions)))


def _conditions(expressions: Sequence[Expression]) -> Iterator[Condition]:
    subject, mask, low = LoadedField(), b"", None
    # The fields loaded since the last comparison or look-up.
    fresh: list[LoadedField] = []
    for at, one in enumerate(expressions, 1):
        found = one.attributes()
        match one.name:
            case "meta" | "ct" | "payload" | "socket" | "exthdr" | "fib" | "rt" | "numgen" | "hash":
                subject, mask = _subject(one.name, found), b""
                # A hash replaces the fields from which it is computed.
                fresh = [subject] if subject == DRAWN else [*fresh, subject]
                continue
            case "bitwise":
                mask = _data(found, 4)
            case "cmp":
                op, value = number_in(found, 2), _data(found, 3)
                if (
                    op == x.AT_LEAST
                    and subject != DRAWN
                    and any(map(_is_upper_end, expressions[at : at + 1]))
                ):
                    low = value
                elif op == x.AT_MOST and low is not None:
                    yield _span(subject, low, value)
                    low = None
                else:
                    yield _comparison(subject, mask, op, value)
            case "match":
                if text_in(found, 1) != "comment":
                    yield from _condition_of_match(text_in(found, 1), found.get(3, b""))
            case "lookup" | "range":
                yield _looked_up(one, fresh, mask) or Unknown()
            case "byteorder" if subject == DRAWN:
                continue
            case "byteorder" | "quota" | "dynset" | "osf" | "xfrm" | "limit" | "connlimit":
                # A set with limits (meter) contains the expression NFTA_DYNSET_EXPR.
                inner = text_in(read_all(found.get(7, b"")), 1) if one.name == "dynset" else ""
                yield Match(MatchField.LIMIT) if {one.name, inner} & _LIMITS else Unknown()
        fresh = []


def _is_upper_end(one: Expression) -> bool:
    return one.name == "cmp" and number_in(one.attributes(), 2) == x.AT_MOST


def _condition_of_match(name: str, data: bytes) -> Iterator[Condition]:
    """Yield the conditions of an xtables match."""
    if name == "conntrack" and len(data) >= _CONNTRACK.size:
        address, mask, port, flags, inverted, bits, last_port = _CONNTRACK.unpack_from(data)
        flags &= ~_ALIAS
        names = [name for bit, name in _XT_STATES.items() if bits & bit]
        if flags == _STATE and names:
            yield replace(states(names), is_inverted=bool(inverted & _STATE))
            return
        if flags and not (flags & ~(_DIALLED_ADDRESS | _DIALLED_PORT) or inverted):
            if flags & _DIALLED_ADDRESS:
                yield _dialled(address, mask)
            if flags & _DIALLED_PORT:
                is_one = last_port in (0, port)
                yield Match(MatchField.DIALLED_PORT, (Ports(port, port),)) if is_one else Unknown()
            return
    if name == "addrtype" and len(data) == _ADDRTYPE.size:
        yield _route_type(*_ADDRTYPE.unpack(data))
    elif name == "statistic":
        yield Match(MatchField.DRAWN)
    elif name in _LIMITS:
        yield Match(MatchField.LIMIT)
    elif name == "socket" and data[:1] and data[0] & _TRANSPARENT:
        yield Match(MatchField.TRANSPARENT_SOCKET)
    elif name == "multiport" and len(data) >= _MULTIPORT.size:
        yield _multiport(*_MULTIPORT.unpack_from(data))
    else:
        yield Unknown()


def _route_type(source: int, to: int, flags: int) -> Condition:
    if source or to != 1 << x.LOCAL or flags & ~_INVERT_DEST:
        return Unknown()
    return Match(MatchField.TO_THIS_NODE, ("local",), bool(flags))


def _multiport(kind: int, count: int, *fields: int) -> Condition:
    """Return a condition on ports; a port may be marked as the start of a range."""
    ports, begins, is_inverted = (*fields[:15], 0), fields[15:30], bool(fields[30])
    spans = tuple(
        Ports(port, ports[at + bool(begins[at])])
        for at, port in enumerate(ports[: min(count, 15)])
        if not (at and begins[at - 1])
    )
    field = _MULTIPORT_FIELDS[kind] if kind < len(_MULTIPORT_FIELDS) else None
    return Match(field, spans, is_inverted) if field and spans else Unknown()


def _dialled(address: bytes, mask: bytes) -> Condition:
    """Return a condition on the dialled address; the first four bytes contain an IPv4 address."""
    # The mask of a single IPv4 address is all ones, in all 16 bytes.
    is_ipv4 = not any(address[4:]) and mask[4:] in (bytes(12), bytes([0xFF] * 12))
    width = 4 if is_ipv4 else 16
    return _network(LoadedField(MatchField.DIALLED_ADDRESS, width), mask[:width], address[:width])


def _subject(name: str, found: dict[int, bytes]) -> LoadedField:
    if name == "socket":
        # In this expression, attribute 1 is the key; in the others, it is the register.
        return LoadedField() if number_in(found, 1) else LoadedField(MatchField.TRANSPARENT_SOCKET)
    if name in ("numgen", "hash"):
        return DRAWN
    place = (name, number_in(found, 2), number_in(found, 3), number_in(found, 4))
    return _FIELDS.get(place) or _FIELDS.get(place[:3], LoadedField())


def _comparison(subject: LoadedField, mask: bytes, op: int, value: bytes) -> Condition:
    field, is_inverted = subject.field, op == x.NOT_EQUAL
    number = int.from_bytes(value, sys.byteorder)
    match field:
        case MatchField.DRAWN:
            return Match(field)
        case _ if op not in (x.EQUAL, x.NOT_EQUAL):
            return Unknown()
        case MatchField.STATE if is_inverted and not number:
            values, is_inverted = values_of(subject, mask), False
        case MatchField.TRANSLATED if int.from_bytes(mask, "little") == x.STATUS_DNAT:
            values, is_inverted = ("dnat",), bool(number) == is_inverted
        case MatchField.TCP_FLAGS if len(value) == 1:
            values = (Bits(mask[0] if mask else 0xFF, number),)
        case MatchField.WAY_IN | MatchField.WAY_OUT if value and not mask:
            values = values_of(subject, value)
        case _ if field in ADDRESSES and value:
            return _network(subject, mask, value, is_inverted=is_inverted)
        case _ if field in PORTS and value and not mask:
            values = values_of(subject, value)
        case _ if is_inverted or not value:
            return Unknown()
        case MatchField.TO_THIS_NODE if number == x.LOCAL:
            values = ("local",)
        case MatchField.TRANSPARENT_SOCKET if number:
            return Match(field)
        case _:
            values = values_of(subject, value) if not mask else ()
    return Match(field, values, is_inverted) if values else Unknown()


def _network(
    subject: LoadedField, mask: bytes, value: bytes, *, is_inverted: bool = False
) -> Condition:
    width = subject.width
    if max(len(value), len(mask)) > width:
        # A raw payload may be longer than its first field, and then the other fields are unknown.
        return Unknown()
    bits = sum(byte.bit_count() for byte in mask) if mask else len(value) * 8
    network = ipaddress.ip_network((value.ljust(width, bytes(1)), bits), strict=False)
    return Match(subject.field, (network,), is_inverted)


def _link(subject: LoadedField, value: bytes) -> tuple[Value, ...]:
    """Return an interface; empty if its name can't be displayed."""
    if value.startswith(_LOOPBACK[subject.is_name]):
        return (LOOPBACK,)
    if not subject.is_name:
        return (int.from_bytes(value, sys.byteorder),)
    name, is_whole, _ = value.partition(bytes(1))
    link = f"{name.decode(errors='replace')}{'' if is_whole or len(value) > 15 else '*'}"
    return (link,) if _LINK.fullmatch(link) else ()


def values_of(subject: LoadedField, value: bytes) -> tuple[Value, ...]:
    """Return the value of a field, or all states of a mask; empty if unknown."""
    match subject.field:
        case MatchField.STATE:
            bits = int.from_bytes(value, "little")
            return tuple(name for bit, name in _STATES.items() if bits & bit)
        case MatchField.FAMILY:
            return ("ipv4" if value[0] == socket.AF_INET else "ipv6",)
        case MatchField.WAY_IN | MatchField.WAY_OUT:
            return _link(subject, value)
    if subject.field in ADDRESSES:
        return (ipaddress.ip_network(value),)
    return span_of(subject, value, value) if subject.field in _NUMBERS else ()


def _span(subject: LoadedField, low: bytes, high: bytes) -> Condition:
    is_whole = len(low) == len(high) and low <= high
    is_address = subject.field in ADDRESSES and len(low) == subject.width
    if not is_whole or not (is_address or subject.field in PORTS):
        return Unknown()
    return Match(subject.field, span_of(subject, low, high))


def span_of(subject: LoadedField, low: bytes, high: bytes) -> tuple[Value, ...]:
    """Return the ports, networks or protocols from ``low`` to ``high``, both included."""
    if subject.field in ADDRESSES:
        ends = ipaddress.ip_address(low), ipaddress.ip_address(high)
        return tuple(ipaddress.summarize_address_range(*ends))
    first, last = int.from_bytes(low, "big"), int.from_bytes(high, "big")
    if subject.field is MatchField.PROTOCOL:
        return tuple(_PROTOCOLS.get(one, str(one)) for one in range(first, min(last, 255) + 1))
    return (Ports(first, last),)


def _looked_up(one: Expression, fresh: Sequence[LoadedField], mask: bytes) -> Condition | None:
    """Return the condition that fields are in a set, map or range; None if it is unsupported."""
    found = one.attributes()
    if mask or not fresh:
        return None
    if one.name == "range" and fresh == [DRAWN]:
        return Match(MatchField.DRAWN)
    if one.name == "range":
        span = _span(fresh[-1], _data(found, 3), _data(found, 4))
        is_outside = number_in(found, 2) != x.EQUAL
        return replace(span, is_inverted=is_outside) if isinstance(span, Match) else span
    is_inverted = bool(number_in(found, 5))
    if is_inverted and (len(fresh) > 1 or fresh[0].field not in _INVERTIBLE):
        return None
    is_read = one.name == "lookup" and all(field.width for field in fresh)
    return SetLookup(tuple(fresh), text_in(found, x.LOOKUP_SET), is_inverted) if is_read else None


def _data(found: dict[int, bytes], kind: int) -> bytes:
    return read_all(found.get(kind, b"")).get(x.DATA_VALUE, b"")
