"""Encodes the rule expressions and the types of set keys that this proxy's rules use.

    meta mark & 0x40 == 0x40 ether daddr set 02:00:00:00:00:01
    = match(MARK, 0x40, mask=0x40) + assign(ETHER_DADDR, 0x020000000001)

A rule is a concatenation of expressions; for a packet, the first failed test ends the rule. The
docstring of a function states what the returned expressions do.

Rule 1: before a header's field, test its protocol, except in a table of that protocol: ``IPV4 +
match(IP_DADDR, …)``, ``TCP + match(TCP_FLAGS, …)``.
Rule 2: each expression uses registers from 1 on, unless the caller passes another register.

Source: include/uapi/linux/netfilter/nf_tables.h; the output of ``nft --debug=netlink``; for key
types nftables' include/datatype.h.
"""

from __future__ import annotations

import ipaddress
import socket
import sys
from collections.abc import Sequence
from typing import Literal, NamedTuple

from ..netlink.messages import attribute, nested, number, text

# NFTA_LIST_ELEM; NFTA_EXPR_…; NFTA_DATA_…; NFTA_COUNTER_…; NFTA_VERDICT_…
LIST_ELEMENT = 1
EXPRESSION_NAME, EXPRESSION_DATA = 1, 2
DATA_VALUE, DATA_VERDICT = 1, 2
COUNTER_PACKETS = 2
VERDICT_CODE, VERDICT_CHAIN = 1, 2
LOOKUP_SET, LOOKUP_SET_ID = 1, 4
EQUAL, NOT_EQUAL, LESS, AT_MOST, GREATER, AT_LEAST = range(6)
"""Comparison operators for :func:`match`."""
ACCEPT, DROP, RETURN, JUMP, GOTO = 1, 0, -5, -3, -4
STATUS_DNAT = 1 << 5
"""A bit of :data:`CT_STATUS`: the destination was translated (IPS_DST_NAT)."""
STATE_INVALID, STATE_ESTABLISHED, STATE_RELATED, STATE_NEW = 1, 2, 4, 8
"""Bits of :data:`CT_STATE`."""
THIS_HOST = 0
"""A value of :data:`PACKET_TYPE`: ``meta pkttype host``."""
FRAGMENT_OFFSET = 0xFFF8
"""The bits of :data:`FRAGMENT` for ``frag frag-off``."""
_INVERTED = 1
_VERDICT_REGISTER = 0
_TCP_RESET, _UNREACHABLE_ANY_FAMILY, _PORT_UNREACHABLE = 1, 2, 1
_DESTINATION, _PORT_GIVEN, _PORT_OFFSET = 1, 2, 1 << 5
_UPDATE = 1
_RANDOM, _FULLY_RANDOM = 1, 1 << 4
_JENKINS = 0
# NFT_REG32_00 is slot 0; the registers consist of sixteen slots of four bytes.
_FIRST_SLOT, _SLOT_BYTES = 8, 4


_KEY_TYPE_BITS = 6


class KeyType(NamedTuple):
    """The type of a set's keys or a map's values, which the kernel stores for ``nft``."""

    number: int
    width: int
    is_in_host_order: bool = False


IPV4_ADDR, IPV6_ADDR = KeyType(7, 4), KeyType(8, 16)
INET_PROTO, INET_SERVICE = KeyType(12, 1), KeyType(13, 2)
NUMBER, LINK_INDEX = KeyType(19, 4, is_in_host_order=True), KeyType(20, 4, is_in_host_order=True)
"""A number in the host's byte order (``nft`` shows a packet mark), and an interface's index."""


def joined(*types: KeyType) -> KeyType:
    """Return the type of concatenated keys; each part is padded to a multiple of four bytes."""
    combined = 0
    for one in types:
        combined = combined << _KEY_TYPE_BITS | one.number
    return KeyType(combined, sum(one.width + -one.width % 4 for one in types))


class Field(NamedTuple):
    """A field of a packet, or of the kernel's metadata about it."""

    expression: str
    width: int
    """The width in bytes."""
    order: Literal["big", "little"]
    """The byte order of the field's numbers."""
    source: bytes
    """The attributes that select this field."""
    register_attribute: int = 1


class InlineSet(NamedTuple):
    """An anonymous set, which belongs to one rule; see :func:`one_of`."""

    field: Field
    key: KeyType
    values: tuple[int, ...]
    is_inverted: bool


class InlineVerdicts(NamedTuple):
    """An anonymous map from numbers to verdicts; see :func:`go_by`."""

    slot: int
    verdicts: tuple[bytes, ...]
    """The verdict of each number from 0 on."""


Part = bytes | InlineSet | InlineVerdicts
"""A part of a rule: concatenated expressions, or a look-up in an anonymous set or map."""


def _meta(key: int, width: int) -> Field:
    return Field("meta", width, sys.byteorder, number(2, key))


def _ct(key: int) -> Field:
    return Field("ct", 4, sys.byteorder, number(2, key))


def _ct_original(key: int, width: int) -> Field:
    """Return a field of a connection's original direction."""
    return Field("ct", width, "big", number(2, key) + attribute(3, b"\0"))


def _socket(key: int, width: int) -> Field:
    return Field("socket", width, sys.byteorder, number(1, key), 2)


def _payload(base: int, offset: int, width: int) -> Field:
    source = number(2, base) + number(3, offset) + number(4, width)
    return Field("payload", width, "big", source)


_LINK, _NETWORK, _TRANSPORT = 0, 1, 2
MARK, NFPROTO, L4PROTO, PACKET_TYPE = _meta(3, 4), _meta(15, 1), _meta(16, 1), _meta(19, 1)
LINK_TYPE = _meta(8, 2)
"""The incoming interface's type, as in if_arp.h: ``meta iiftype``."""
CT_STATE, CT_STATUS = _ct(0), _ct(2)
IN_LINK, OUT_LINK = _meta(4, 4), _meta(5, 4)
"""The interfaces' indexes, 0 for none; before Linux 5.7, IN_LINK is missing in postrouting."""
ORIGINAL_IP_DADDR, ORIGINAL_IP6_DADDR = _ct_original(20, 4), _ct_original(22, 16)
ORIGINAL_DPORT = _ct_original(12, 2)
"""The address and port that a client dialled, before translation."""
SOCKET_TRANSPARENT, SOCKET_WILDCARD = _socket(0, 1), _socket(2, 1)
ETHER_DADDR = _payload(_LINK, 0, 6)
IP_DADDR, IP6_DADDR = _payload(_NETWORK, 16, 4), _payload(_NETWORK, 24, 16)
IP_SADDR, IP6_SADDR = _payload(_NETWORK, 12, 4), _payload(_NETWORK, 8, 16)
SPORT, DPORT = _payload(_TRANSPORT, 0, 2), _payload(_TRANSPORT, 2, 2)
TCP_FLAGS = _payload(_TRANSPORT, 13, 1)
# NFTA_FIB_RESULT is NFT_FIB_RESULT_ADDRTYPE, NFTA_FIB_FLAGS is NFTA_FIB_F_DADDR.
DADDR_TYPE = Field("fib", 4, sys.byteorder, number(2, 3) + number(3, 2))
"""The type of the destination address according to the node's routes: ``fib daddr type``."""
SADDR_TYPE = Field("fib", 4, sys.byteorder, number(2, 3) + number(3, 1))
"""The type of the source address according to the node's routes: ``fib saddr type``."""
LOCAL = 2
"""A value of :data:`DADDR_TYPE` and :data:`SADDR_TYPE`: an address of this node (RTN_LOCAL)."""
FRAGMENT = Field(
    "exthdr", 2, "big", attribute(2, bytes([socket.IPPROTO_FRAGMENT])) + number(3, 2) + number(4, 2)
)
"""The field of IPv6's fragment header with :data:`FRAGMENT_OFFSET` and the flags."""


def expression(name: str, attributes: bytes = b"", kind: int = LIST_ELEMENT) -> bytes:
    """Return an encoded expression, as an element of a rule's list."""
    data = nested(EXPRESSION_DATA, attributes)
    return nested(kind, text(EXPRESSION_NAME, name) + data)


def load(field: Field, register: int = 1) -> bytes:
    """Load a field into a register."""
    return expression(field.expression, field.source + number(field.register_attribute, register))


def match(field: Field, value: int | bytes, *, mask: int | bytes = b"", op: int = EQUAL) -> bytes:
    """Continue if a comparison of a field with a value holds.

    Args:
        value: The value: a number, or bytes as in a packet.
        mask: The bits of the field to compare; by default all.
    """
    masked = _bits(_packed(field, mask), bytes(field.width)) if mask else b""
    return load(field) + masked + _compare(_packed(field, value), op)


def match_network(network: str) -> bytes:
    """Continue if the destination is in a network, given with a prefix length."""
    return _in_network(network, IP_DADDR, IP6_DADDR)


def from_network(network: str) -> bytes:
    """Continue if the source is in a network, given with a prefix length."""
    return _in_network(network, IP_SADDR, IP6_SADDR)


def within(field: Field, first: int, last: int) -> bytes:
    """Continue if a field is in a range."""
    low, high = _packed(field, first), _packed(field, last)
    return load(field) + _compare(low, AT_LEAST) + _compare(high, AT_MOST)


def in_set(fields: Sequence[Field], name: str, *, is_inverted: bool = False) -> bytes:
    """Continue if the concatenated fields are (or are not) a key of a set."""
    flags = number(5, _INVERTED) if is_inverted else b""
    return _load_key(fields, 1) + expression(
        "lookup", text(LOOKUP_SET, name) + number(2, 1) + flags
    )


def one_of(field: Field, key: KeyType, *values: int, is_inverted: bool = False) -> InlineSet:
    """Continue if a field is (or is not) one of two or more values, as ``nft`` encodes it."""
    return InlineSet(field, key, values, is_inverted)


def look_up(fields: Sequence[Field], name: str, register: int = 1) -> bytes:
    """Continue if a map contains the fields as a key; put its value into a register.

    Args:
        register: The register for the value, 1 to 4. The key also uses the following registers.
    """
    attributes = text(LOOKUP_SET, name) + number(2, register) + number(3, register)
    return _load_key(fields, register) + expression("lookup", attributes)


def load_slots(fields: Sequence[Field], first: int) -> bytes:
    """Load fields into consecutive slots, from ``first`` on; each field begins in a new slot."""
    return _load_key(fields, 1, first * _SLOT_BYTES)


def find(name: str, key: int, value: int) -> bytes:
    """Continue if a map contains the key in a slot; put its value into slots from ``value`` on."""
    return expression("lookup", text(LOOKUP_SET, name) + _slot(2, key) + _slot(3, value))


def go_by(slot: int, verdicts: Sequence[bytes]) -> InlineVerdicts:
    """End the rule with the verdict whose index is in a slot; without one if the index is too high.

    Args:
        verdicts: At least one verdict, encoded as in a map's elements.
    """
    return InlineVerdicts(slot, tuple(verdicts))


def find_verdict(name: str, key: int) -> bytes:
    """End the rule with a map's verdict for the key in a slot; without one if the map lacks it."""
    return expression("lookup", text(LOOKUP_SET, name) + _slot(2, key) + number(3, 0))


def has(name: str, key: int) -> bytes:
    """Continue if a set contains the key in a slot."""
    return expression("lookup", text(LOOKUP_SET, name) + _slot(2, key))


def counter(kind: int) -> bytes:
    """Return a counter of packets and bytes as an attribute, such as of a set."""
    return expression("counter", kind=kind)


def pick(count: int, slot: int, first: int = 0) -> bytes:
    """Put a random number between ``first`` and ``first + count - 1`` into a slot."""
    counted = number(2, count) + number(3, _RANDOM) + number(4, first)
    return expression("numgen", _slot(1, slot) + counted)


def pick_by(source: int, width: int, count: int, slot: int, *, seed: int, first: int = 0) -> bytes:
    """Hash bytes from other slots (Jenkins hash) to a number, and put it into a slot.

    The number is between ``first`` and ``first + count - 1``.

    Args:
        source: The first slot of the hashed bytes.
        width: The number of hashed bytes.
        seed: With the same seed, equal bytes give the same number everywhere.
    """
    hashed = _slot(1, source) + number(3, width) + number(5, seed) + number(7, _JENKINS)
    return expression("hash", hashed + _slot(2, slot) + number(4, count) + number(6, first))


def put_slot(value: bytes, slot: int) -> bytes:
    """Put bytes into the registers from a slot on."""
    return put(value, _register(slot))


def remember(name: str, key: int, timeout_s: int, *, counts: bool = False) -> bytes:
    """Add the key in a slot to a dynamic set, or restart the timeout of the existing key.

    If the set is full, the rule ends.

    Args:
        counts: Whether the element counts packets, as in :meth:`.TableWriter.add_set`.
    """
    place = text(1, name) + number(3, _UPDATE) + _slot(4, key)
    timeout = attribute(6, (timeout_s * 1000).to_bytes(8, "big"))
    return expression("dynset", place + timeout + (counter(7) if counts else b""))


def dnat_to(ip: int, port: int, family: int) -> bytes:
    """Translate to the address and the port in two slots."""
    return dnat(_register(ip), _register(port), family)


def dnat_to_ip(ip: int, family: int) -> bytes:
    """Translate to the address in a slot; the port stays the same."""
    return expression("nat", number(1, _DESTINATION) + number(2, family) + number(3, _register(ip)))


def dnat_shifted(ip: int, first: int, last: int, family: int) -> bytes:
    """Translate to the address in a slot, and the dialled port to another port.

    Two more slots contain the ports ``first`` and ``last``; the new port is ``first + dialled %
    (last - first + 1)``. ``nft`` lists the range without the flag, which it doesn't support.

    Source: nf_nat_l4proto_unique_tuple() in net/netfilter/nf_nat_core.c, NF_NAT_RANGE_PROTO_OFFSET.
    """
    ports = number(5, _register(first)) + number(6, _register(last))
    where = number(3, _register(ip)) + ports + number(7, _PORT_GIVEN | _PORT_OFFSET)
    return expression("nat", number(1, _DESTINATION) + number(2, family) + where)


def masquerade() -> bytes:
    """Translate the source to the outgoing interface's address and a random port."""
    return expression("masq", number(1, _FULLY_RANDOM))


def look_up_inline(inline: InlineSet, name: str, set_id: int) -> bytes:
    """Return the look-up in an anonymous set, which the same transaction creates."""
    flags = number(5, _INVERTED) if inline.is_inverted else b""
    attributes = text(LOOKUP_SET, name) + number(LOOKUP_SET_ID, set_id) + number(2, 1) + flags
    return load(inline.field) + expression("lookup", attributes)


def go_by_inline(inline: InlineVerdicts, name: str, set_id: int) -> bytes:
    """Return the look-up in an anonymous map, which the same transaction creates."""
    place = text(LOOKUP_SET, name) + number(LOOKUP_SET_ID, set_id)
    return expression("lookup", place + _slot(2, inline.slot) + number(3, _VERDICT_REGISTER))


def put(value: bytes, register: int = 1) -> bytes:
    """Put bytes into a register."""
    return expression("immediate", number(1, register) + nested(2, attribute(DATA_VALUE, value)))


def assign(field: Field, value: int | bytes) -> bytes:
    """Change a field of the packet, or of its metadata (``meta``)."""
    return put(_packed(field, value)) + _store(field)


def set_bits(field: Field, bits: int) -> bytes:
    """Set some bits of a field: ``meta mark set meta mark | BITS``."""
    others = _packed(field, ~bits & (1 << 8 * field.width) - 1)
    return load(field) + _bits(others, _packed(field, bits)) + _store(field)


def redirect() -> bytes:
    """Translate to the incoming interface's address (in output: loopback) and register 1's port."""
    return expression("redir", number(1, 1) + number(3, _PORT_GIVEN))


def dnat(ip_register: int, port_register: int, family: int = socket.AF_INET) -> bytes:
    """Translate to the address and the port in two registers."""
    where = number(3, ip_register) + number(5, port_register)
    return expression("nat", number(1, _DESTINATION) + number(2, family) + where + number(7, 2))


def reject(*, with_tcp_reset: bool = False) -> bytes:
    """Reject the packet with port unreachable, or, in a rule only for TCP, with a RST."""
    kind, code = (_TCP_RESET, 0) if with_tcp_reset else (_UNREACHABLE_ANY_FAMILY, _PORT_UNREACHABLE)
    return expression("reject", number(1, kind) + attribute(2, bytes([code])))


def tproxy(port: int) -> bytes:
    """Deliver a packet to the transparent socket on a local port."""
    return put(port.to_bytes(2, "big")) + expression("tproxy", number(1, 0) + number(3, 1))


def notrack() -> bytes:
    """Exclude a packet from connection tracking, in a chain whose priority is below -200."""
    return expression("notrack")


def verdict(code: int, chain: str = "") -> bytes:
    """End the rule: :data:`ACCEPT`, :data:`DROP`, :data:`RETURN`, or jump to or go to a chain."""
    value = number(VERDICT_CODE, code) + (text(VERDICT_CHAIN, chain) if chain else b"")
    data = nested(2, nested(DATA_VERDICT, value))
    return expression("immediate", number(1, _VERDICT_REGISTER) + data)


def _store(field: Field) -> bytes:
    if field.expression == "payload":
        return expression("payload", field.source + number(5, 1) + number(6, 0))
    return expression(field.expression, field.source + number(3, 1))


def _load_key(fields: Sequence[Field], register: int, offset: int = 0) -> bytes:
    """Load fields as one key; each field begins at a multiple of four bytes."""
    loads, offset = [], (register - 1) * 16 + offset
    for field in fields:
        # A register of 16 bytes has a number, and each of its four quarters has its own.
        at = 8 + offset // 4 if offset % 16 else 1 + offset // 16
        loads.append(load(field, at))
        offset += field.width + -field.width % 4
    return b"".join(loads)


def _register(slot: int) -> int:
    return _FIRST_SLOT + slot


def _slot(kind: int, slot: int) -> bytes:
    return number(kind, _register(slot))


def _in_network(network: str, ip: Field, ip6: Field) -> bytes:
    parsed = ipaddress.ip_network(network)
    address, mask = parsed.network_address.packed, parsed.netmask.packed
    return match(ip if parsed.version == 4 else ip6, address, mask=mask)


def _packed(field: Field, value: int | bytes) -> bytes:
    return value if isinstance(value, bytes) else value.to_bytes(field.width, field.order)


def _bits(mask: bytes, flip: bytes) -> bytes:
    data = nested(4, attribute(DATA_VALUE, mask)) + nested(5, attribute(DATA_VALUE, flip))
    return expression("bitwise", number(1, 1) + number(2, 1) + number(3, len(mask)) + data)


def _compare(value: bytes, op: int) -> bytes:
    data = nested(3, attribute(DATA_VALUE, value))
    return expression("cmp", number(1, 1) + number(2, op) + data)


IPV4, IPV6 = match(NFPROTO, socket.AF_INET), match(NFPROTO, socket.AF_INET6)
ETHERNET = match(LINK_TYPE, 1)
"""Required before :data:`ETHER_DADDR`, except in the ``bridge`` family."""
TCP, UDP = match(L4PROTO, socket.IPPROTO_TCP), match(L4PROTO, socket.IPPROTO_UDP)
"""``tcp dport 80`` is ``TCP + match(DPORT, 80)``."""
