"""Nftables rules as text, as far as they determine a packet's verdict.

    [ ct load status ] [ bitwise & 0x20 ] [ cmp neq 0 ] [ immediate accept ]
    ──▶ Step("accept", "ct status dnat")

Rule 1: a condition that isn't understood is ``…``, which no packet certainly meets; one about the
destination or the connection's state (looked up in a set or map, or not equal) is ``…daddr``,
``…dport`` or ``…state``. One about nothing but the client (its source, or its way in) is
``…saddr``. A field of :data:`READ` that is looked up is ``ct state @SET``, of which ``looked_up``
writes the elements.

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

from ..netlink.messages import ip_of, number_in, read_all, text_in
from . import expressions as x
from .chains import Step
from .reader import Expression

UNKNOWN = "…"
NOT_UNDERSTOOD = {
    "ip daddr": "…daddr",
    "ip6 daddr": "…daddr",
    "th dport": "…dport",
    "ct state": "…state",
    "fib daddr type": "…daddr",
}
UNKNOWN_CLIENT = "…saddr"
SOURCES = ("ip saddr", "ip6 saddr")
_OF_CLIENTS = {*SOURCES, "iif", "iifname"}
# In bytes; rules that compare a prefix load fewer.
_WIDTHS = {
    "ct original ip daddr": 4,
    "ct original ip6 daddr": 16,
    "ip daddr": 4,
    "ip6 daddr": 16,
    "ip saddr": 4,
    "ip6 saddr": 16,
}
READ = {**_WIDTHS, "th dport": 2, "ct state": 4, "meta l4proto": 1}
"""The fields that are understood if a set or map has them, with their widths in bytes."""
_PORTS = ("th sport", "th dport")
# The number and the name of the loopback interface, which is each namespace's first.
_LOOPBACK = {
    f"{way}{name}": value
    for way in ("iif", "oif")
    for name, value in (("", (1).to_bytes(4, sys.byteorder)), ("name", b"lo\0"))
}
# Of an interface, with an asterisk for any further characters.
_LINK = re.compile(r"[\w.@:-]+\*?")
_VERDICTS = {x.ACCEPT: "accept", x.DROP: "drop", x.RETURN: "return"}
_LEADS = {x.JUMP: "jump", x.GOTO: "goto"}
# The expressions that translate addresses, in a chain of the kind nat.
_TRANSLATIONS = {"nat", "redir", "DNAT", "REDIRECT"}
_STATES = {
    x.STATE_INVALID: "invalid",
    x.STATE_ESTABLISHED: "established",
    x.STATE_RELATED: "related",
    x.STATE_NEW: "new",
}
_PROTOCOLS = {socket.IPPROTO_TCP: "tcp", socket.IPPROTO_UDP: "udp"}
_PROTOCOL = "meta l4proto "
# NFT_LIMIT_F_INV and NFT_CONNLIMIT_F_INV.
_LIMIT_OVER = 1
_FEW = 10
# Of the expression "fib": NFT_FIB_RESULT_ADDRTYPE and NFTA_FIB_F_DADDR.
_ADDRESS_TYPE, _OF_DADDR = 3, 2
# Of xt_conntrack_mtinfo3; XT_CONNTRACK_STATE is bit 0 of match_flags.
_CONNTRACK = struct.Struct("=32x16s16s76xH4x3H4xH4x")
_STATE, _DIALLED_ADDRESS, _DIALLED_PORT = 1, 1 << 3, 1 << 9
# XT_CONNTRACK_STATE_INVALID, XT_CONNTRACK_STATE_BIT() and XT_CONNTRACK_STATE_DNAT.
_XT_STATES = {
    1: "invalid",
    1 << 1: "established",
    1 << 2: "related",
    1 << 3: "new",
    1 << 7: "dnat",
}
# Of xt_ct_target_info: XT_CT_NOTRACK.
_NOTRACK = 1
# Of xt_socket_mtinfo1: XT_SOCKET_TRANSPARENT.
_TRANSPARENT = 1


def read_step(expressions: Sequence[Expression]) -> Step | None:
    """Return a rule's conditions and verdict; None without a verdict.

    The verdict of a map is ``vmap``, on a condition that isn't understood.
    """
    verdict = next((found for one in expressions if (found := _verdict(one))), "")
    return Step(verdict, " ".join(_words(expressions))) if verdict else None


def _verdict(one: Expression) -> str:
    found = one.attributes()
    if one.name == "immediate":
        return verdict_in_words(found.get(2, b""))
    if one.name == "lookup" and 3 in found and not number_in(found, 3):
        # The register of a verdict is 0.
        return "vmap"
    name = text_in(found, 1) if one.name == "target" else one.name
    if name in _TRANSLATIONS:
        is_source = one.name == "nat" and number_in(found, 1) == 0
        return "" if is_source else "translate"
    if name == "CT" and found.get(3, b"")[:1] and found[3][0] & _NOTRACK:
        return "notrack"
    return name.lower() if name in ("reject", "REJECT", "queue", "notrack") else ""


def verdict_in_words(data: bytes) -> str:
    """Return the verdict in the attributes of data, as ``jump zone``; empty if there is none."""
    value = read_all(read_all(data).get(x.DATA_VERDICT, b""))
    code = number_in(value, x.VERDICT_CODE, is_signed=True) if value else None
    if code in _LEADS:
        return f"{_LEADS[code]} {text_in(value, x.VERDICT_CHAIN)}"
    return "" if code is None else _VERDICTS.get(code, "")


def _words(expressions: Sequence[Expression]) -> list[str]:
    """Return each condition as text; a protocol and its port are one."""
    words: list[str] = []
    for word in _conditions(expressions):
        is_protocol = words and words[-1].startswith(_PROTOCOL) and "@" not in words[-1]
        if is_protocol and word.startswith("th "):
            words[-1] = f"{words[-1].removeprefix(_PROTOCOL)} {word.removeprefix('th ')}"
        elif word != UNKNOWN or UNKNOWN not in words:
            words.append(word)
    return words


def _conditions(expressions: Sequence[Expression]) -> Iterator[str]:
    subject, mask, low = "", b"", None
    loaded: list[str] = []
    # Those that the next comparison or look-up is about.
    fresh: list[str] = []
    for one in expressions:
        found = one.attributes()
        match one.name:
            case "meta" | "ct" | "payload" | "socket" | "exthdr" | "fib" | "rt" | "numgen" | "hash":
                subject, mask = _subject(one.name, found), b""
                loaded.append(subject)
                fresh.append(subject)
                continue
            case "bitwise":
                mask = _data(found, 4)
            case "cmp":
                op, value = number_in(found, 2), _data(found, 3)
                if op == x.AT_LEAST:
                    low = value
                elif op == x.AT_MOST and low is not None:
                    yield _span(subject, low, value)
                    low = None
                else:
                    yield _comparison(subject, mask, op, value)
            case "match":
                if text_in(found, 1) != "comment":
                    yield _condition_of_match(text_in(found, 1), found.get(3, b""))
            case "lookup" | "range":
                yield _looked_up(one, fresh, mask) or _unknown(fresh or loaded)
            case "byteorder" | "quota" | "dynset" | "osf" | "xfrm":
                # Not about the client alone: a meter with a limit for each source is a dynset.
                yield _unknown([UNKNOWN, *loaded])
            case "limit" | "connlimit":
                yield from _limit(one.name, found)
        fresh = []


def _limit(name: str, found: Mapping[int, bytes]) -> Iterator[str]:
    """Yield ``limit over`` or ``limit within`` for a low limit.

    Less than one packet a second, or ten connections, is low. Packets are assumed to be within a
    higher limit.
    """
    is_rate = name == "limit"
    is_over = number_in(found, 5 if is_rate else 2) & _LIMIT_OVER
    rate, unit_s = number_in(found, 1), number_in(found, 2) if is_rate else _FEW
    if rate < unit_s and not (is_rate and number_in(found, 4)):
        yield "limit over" if is_over else "limit within"
    elif is_over:
        yield UNKNOWN


def words_of_states(states: Sequence[str]) -> str:
    """Return a condition on states in the syntax of nft: ``ct state established,new``.

    Args:
        states: One or more, including "dnat", which iptables treats as a state.
    """
    return "ct status dnat" if states == ["dnat"] else f"ct state {','.join(states)}"


def _condition_of_match(name: str, data: bytes) -> str:
    """Return the condition of an xtables match in the syntax of nft; ``…`` if it is unknown."""
    if name == "conntrack" and len(data) >= _CONNTRACK.size:
        address, mask, port, flags, inverted, states, last_port = _CONNTRACK.unpack_from(data)
        names = [name for bit, name in _XT_STATES.items() if states & bit]
        if flags == _STATE and not inverted and names:
            return words_of_states(names)
        if flags and not (flags & ~(_DIALLED_ADDRESS | _DIALLED_PORT) or inverted):
            words = _dialled(address, mask) if flags & _DIALLED_ADDRESS else ""
            is_other = flags & _DIALLED_PORT and last_port not in (0, port)
            ports = UNKNOWN if is_other else f"ct original proto-dst {port}"
            return f"{words} {ports}".strip() if flags & _DIALLED_PORT else words
    if name == "socket" and data[:1] and data[0] & _TRANSPARENT:
        return "socket transparent"
    return f"{UNKNOWN}{name}"


def _dialled(address: bytes, mask: bytes) -> str:
    """Return a condition on what was dialled; an IPv4 address is the first part of the bytes."""
    # The mask of one IPv4 address is all ones.
    is_ipv4 = not any(address[4:]) and mask[4:] in (bytes(12), bytes([0xFF] * 12))
    width = 4 if is_ipv4 else 16
    bits = sum(byte.bit_count() for byte in mask[:width])
    return f"ct original ip{'' if is_ipv4 else 6} daddr {ip_of(address[:width])}/{bits}"


def _subject(name: str, found: dict[int, bytes]) -> str:
    """Return the loaded field in the syntax of nft; empty for one that doesn't matter."""
    if name == "socket":
        # Its register has the number of other expressions' key.
        return "" if number_in(found, 1) else "socket transparent"
    place = (name, number_in(found, 2), number_in(found, 3), number_in(found, 4))
    return {
        ("meta", 15, 0, 0): "meta nfproto",
        ("meta", 16, 0, 0): "meta l4proto",
        ("ct", 0, 0, 0): "ct state",
        ("fib", _ADDRESS_TYPE, _OF_DADDR, 0): "fib daddr type",
        ("ct", 2, 0, 0): "ct status",
        ("ct", 9, 0, 0): "ct original ip daddr",
        ("ct", 20, 0, 0): "ct original ip daddr",
        ("ct", 22, 0, 0): "ct original ip6 daddr",
        ("ct", 12, 0, 0): "ct original proto-dst",
        ("meta", 4, 0, 0): "iif",
        ("meta", 6, 0, 0): "iifname",
        ("meta", 5, 0, 0): "oif",
        ("meta", 7, 0, 0): "oifname",
        ("payload", 1, 12, place[3]): "ip saddr",
        ("payload", 1, 8, place[3]): "ip6 saddr",
        ("payload", 1, 16, place[3]): "ip daddr",
        ("payload", 1, 24, place[3]): "ip6 daddr",
        ("payload", 1, 9, 1): "meta l4proto",
        ("payload", 2, 0, 2): "th sport",
        ("payload", 2, 2, 2): "th dport",
        ("payload", 2, 13, 1): "tcp flags",
    }.get(place, "")


def _comparison(subject: str, mask: bytes, op: int, value: bytes) -> str:
    if subject == "ct state" and op == x.NOT_EQUAL and not any(value):
        return f"ct state {value_in_words(subject, mask)}"
    if subject == "ct status" and int.from_bytes(mask, "little") == x.STATUS_DNAT:
        is_set = any(value) == (op == x.EQUAL)
        return "ct status dnat" if is_set else "ct status ! dnat"
    if subject == "tcp flags" and op in (x.EQUAL, x.NOT_EQUAL) and len(value) == 1:
        sign = "==" if op == x.EQUAL else "!="
        return f"tcp flags {mask[0] if mask else 0xFF} {sign} {value[0]}"
    if subject in _OF_CLIENTS and op in (x.EQUAL, x.NOT_EQUAL) and value:
        return _comparison_of_client(subject, mask, "!= " if op == x.NOT_EQUAL else "", value)
    # A raw payload may be longer than the field that it begins with.
    if op != x.EQUAL or not 0 < len(value) <= _WIDTHS.get(subject, len(value)):
        return _unknown([subject])
    if subject == "socket transparent":
        return subject if any(value) else UNKNOWN
    if subject == "fib daddr type" and int.from_bytes(value, sys.byteorder) == x.LOCAL:
        return "fib daddr type local"
    if subject == "meta l4proto" and not mask:
        return f"{_PROTOCOL}{value_in_words(subject, value)}"
    if subject == "meta nfproto" and not mask:
        return f"meta nfproto {'ipv4' if value[0] == socket.AF_INET else 'ipv6'}"
    if subject in (*_PORTS, "ct original proto-dst") and not mask:
        return f"{subject} {value_in_words(subject, value)}"
    if subject in _LOOPBACK and not mask and value.startswith(_LOOPBACK[subject]):
        return f"{subject[:3]} lo"
    return f"{subject} {_network(subject, mask, value)}" if subject in _WIDTHS else UNKNOWN


def _network(subject: str, mask: bytes, value: bytes) -> str:
    bits = sum(byte.bit_count() for byte in mask) if mask else len(value) * 8
    return f"{ip_of(value.ljust(_WIDTHS[subject], bytes(1)))}/{bits}"


def _comparison_of_client(subject: str, mask: bytes, sign: str, value: bytes) -> str:
    """Return a condition on the source, or on the interface by which packets come in.

    Args:
        sign: ``!= `` or empty.
    """
    width = _WIDTHS.get(subject, 0)
    if width:
        # A raw payload may be longer than the field that it begins with.
        is_field = len(value) <= width
        return f"{subject} {sign}{_network(subject, mask, value)}" if is_field else UNKNOWN
    if not mask and value.startswith(_LOOPBACK[subject]):
        return UNKNOWN if sign else f"{subject[:3]} lo"
    if subject == "iif":
        number = int.from_bytes(value, sys.byteorder)
        return f"iif {sign}{number}" if not mask else UNKNOWN_CLIENT
    name, is_whole, _ = value.partition(bytes(1))
    link = f"{name.decode(errors='replace')}{'' if is_whole or len(value) > 15 else '*'}"
    return f"iifname {sign}{link}" if _LINK.fullmatch(link) and not mask else UNKNOWN_CLIENT


def value_in_words(subject: str, value: bytes) -> str:
    """Return a state, or a mask of states, an address, a protocol or a port.

    Args:
        subject: The field, as in :data:`READ`.
    """
    if subject in _WIDTHS:
        return f"{ip_of(value)}/{len(value) * 8}"
    if subject == "ct state":
        bits = int.from_bytes(value, "little")
        return ",".join(name for bit, name in _STATES.items() if bits & bit)
    number = int.from_bytes(value, "big")
    return _PROTOCOLS.get(number, str(number)) if subject == "meta l4proto" else str(number)


def _span(subject: str, low: bytes, high: bytes) -> str:
    is_whole = len(low) == len(high) and low <= high
    if subject not in (*_WIDTHS, *_PORTS) or not is_whole:
        return _unknown([subject])
    return f"{subject} {','.join(span_in_words(subject, low, high))}"


def span_in_words(subject: str, low: bytes, high: bytes) -> Iterator[str]:
    """Yield a span of ports, or the networks of a span of addresses, both ends included."""
    if subject in _WIDTHS:
        ends = ipaddress.ip_address(low), ipaddress.ip_address(high)
        yield from map(str, ipaddress.summarize_address_range(*ends))
    else:
        first, last = (value_in_words(subject, end) for end in (low, high))
        yield f"{first}-{last}" if first != last else first


def _looked_up(one: Expression, fresh: Sequence[str], mask: bytes) -> str:
    """Return the condition of a field that is in a set or a map of verdicts, or in a range.

    Args:
        fresh: What the expression is about.
        mask: Of the field.

    Returns:
        Empty for any other condition.
    """
    found = one.attributes()
    if mask or not fresh:
        return ""
    if one.name == "range" and number_in(found, 2) == x.EQUAL:
        return _span(fresh[-1], _data(found, 3), _data(found, 4))
    is_inverted = bool(number_in(found, 5))
    is_plain = one.name == "lookup" and not number_in(found, 3)
    is_read = is_plain and all(field in READ for field in fresh)
    if is_inverted and (len(fresh) > 1 or fresh[-1] not in SOURCES):
        return ""
    sign = "!= " if is_inverted else ""
    return f"{' . '.join(fresh)} {sign}@{text_in(found, x.LOOKUP_SET)}" if is_read else ""


def _unknown(subjects: Sequence[str]) -> str:
    """Return the text for a condition on these fields that isn't understood."""
    if subjects and _OF_CLIENTS.issuperset(subjects):
        return UNKNOWN_CLIENT
    return next((NOT_UNDERSTOOD[s] for s in subjects if s in NOT_UNDERSTOOD), UNKNOWN)


def _data(found: dict[int, bytes], kind: int) -> bytes:
    return read_all(found.get(kind, b"")).get(x.DATA_VALUE, b"")
