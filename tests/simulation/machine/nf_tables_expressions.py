"""Evaluates the expressions of rules for a packet, as the kernel's nft_do_chain() does.

Source: net/netfilter/nf_tables_core.c, nft_*.c; include/uapi/linux/netfilter/nf_tables.h.
"""

from __future__ import annotations

import functools
import ipaddress
import operator
import socket
import sys
from collections.abc import Callable

from .conntrack_entries import DESTINATION_TRANSLATED, Flow, Place
from .jenkins import jhash
from .netlink_routes import Link
from .nf_tables_state import (
    ACCEPT,
    CONCATENATED,
    DROP,
    INTERVAL,
    PREROUTING,
    Element,
    Expression,
    NftSet,
    Table,
    Verdict,
)

BREAK = -2
"""The rest of the rule is skipped: the next rule is evaluated."""
REJECTED = -100
"""Dropped, with an RST or ICMP error to the client."""
_NEW = 8
_KIND_BYTES = 16
_LOCAL, _UNICAST = 2, 1
_EQUAL, _NOT_EQUAL, _LESS, _AT_MOST, _GREATER, _AT_LEAST = range(6)
_COMPARISONS: dict[int, Callable[[bytes, bytes], bool]] = {
    _EQUAL: operator.eq,
    _NOT_EQUAL: operator.ne,
    _LESS: operator.lt,
    _AT_MOST: operator.le,
    _GREATER: operator.gt,
    _AT_LEAST: operator.ge,
}
_ORDER = sys.byteorder


class Packet:
    """One packet of a flow, with its destination so far."""

    def __init__(self, flow: Flow, to: Place, mark: int = 0) -> None:
        self.flow = flow
        self.to = to
        self.mark = mark
        self.hook = PREROUTING
        self.in_link: Link | None = None
        self.out_link: Link | None = None
        self.address_here = ""
        """The address that ``redirect`` translates to."""
        self.has_translated = False
        """Whether a chain of this hook has translated the packet."""
        self.is_translation_over = False
        self.is_masqueraded = False
        self.socket_at: Callable[[int, int], bool | None] = lambda _protocol, _port: None
        self.is_local: Callable[[str], bool] = lambda _ip: False
        self.tcp_flags = 0x02
        self._headers: tuple[Place, bytes, bytes] | None = None

    @property
    def status(self) -> int:
        """The value of ``ct status``."""
        return DESTINATION_TRANSLATED if self.to != self.flow.dialled else 0

    def headers(self) -> tuple[Place, bytes, bytes]:
        """Return the destination, and the network and transport headers."""
        # Cost: most rules match one of the headers.
        if self._headers is None or self._headers[0] != self.to:
            self._headers = self.to, self._header(), self._transport()
        return self._headers

    def _header(self) -> bytes:
        source, target = self.flow.client.packed, self.to.packed
        if self.flow.version == 4:
            return bytes(9) + bytes([self.flow.protocol]) + bytes(2) + source + target
        return bytes(6) + bytes([self.flow.protocol, 64]) + source + target

    def _transport(self) -> bytes:
        ports = self.flow.client.port.to_bytes(2, "big") + self.to.port.to_bytes(2, "big")
        if self.flow.protocol == socket.IPPROTO_TCP:
            return ports + bytes(8) + bytes([0x50, self.tcp_flags]) + bytes(6)
        return ports + bytes(4)


class Moment:
    """The time and random numbers of an evaluation, and whether it has side effects.

    Args:
        draw: Returns a random integer in [0, n).
        has_effects: Whether counters are incremented and elements added to dynamic sets.
    """

    def __init__(self, now: float, draw: Callable[[int], int], *, has_effects: bool) -> None:
        self.now = now
        self.draw = draw
        self.has_effects = has_effects

    def find(self, looked_up: NftSet, key: bytes) -> Element | None:
        """Return the element of a set that matches a key; None if none does."""
        if looked_up.flags & CONCATENATED:
            return next((e for e in looked_up.elements.values() if e.has(key)), None)
        if looked_up.flags & INTERVAL:
            before = [e for e in looked_up.elements.values() if e.key <= key]
            last = max(before, key=lambda e: (e.key, not e.is_end), default=None)
            return None if last is None or last.is_end else last
        found = looked_up.elements.get((key, False))
        is_over = found is not None and 0 < found.expires_at <= self.now
        return None if is_over else found


class Registers:
    """Sixteen registers of four bytes; each must be written before it is read."""

    __slots__ = ("_bytes", "_written")

    def __init__(self) -> None:
        self._bytes = bytearray(64)
        self._written = 0
        """A bit for each register."""

    def put(self, part: int, value: bytes) -> None:
        """Write a value from register ``part`` on, padding the last register with zeros."""
        count = (len(value) + 3) >> 2
        if len(value) & 3:
            value = value.ljust(count * 4, b"\0")
        self._bytes[part * 4 : (part + count) * 4] = value
        self._written |= _BITS[count] << part

    def get(self, part: int, width: int) -> bytes:
        """Return bytes from register ``part`` on, which must have been written."""
        bits = _BITS[(width + 3) >> 2] << part
        assert self._written & bits == bits, f"part {part} is read, but not written"
        return bytes(self._bytes[part * 4 : part * 4 + width])


_BITS = tuple((1 << count) - 1 for count in range(17))
# The index of each register's first 4 bytes: NFT_REG_1 to 4 have 16 bytes, NFT_REG32_00 to 15 have
# 4.
_PART = {register: (register - 1) * 4 for register in range(1, 5)} | {
    register: register - 8 for register in range(8, 24)
}
_ACCEPTED, _BROKEN, _DROPPED, _REFUSED = map(Verdict, (ACCEPT, BREAK, DROP, REJECTED))
Step = Callable[[Moment, Registers, Packet, Table], Verdict | None]
"""Evaluates one expression; returns a verdict, or None to continue."""


def step_of(one: Expression) -> Step:
    """Return the function that evaluates an expression; created on first use."""
    if not one.step:
        one.step.append(_STEPS[one.name](one))
    return one.step[0]


def _meta_step(one: Expression) -> Step:
    register, key, source = one.first_numbers[:3]
    if source:
        assert key == 3, f"meta {key} is set"
        from_part = _PART[source]

        def mark(_: Moment, registers: Registers, packet: Packet, __: Table) -> None:
            packet.mark = int.from_bytes(registers.get(from_part, 4), _ORDER)

        return mark
    part = _PART[register]

    def step(_: Moment, registers: Registers, packet: Packet, __: Table) -> Verdict | None:
        value = metadata(key, packet)
        if value is None:
            return _BROKEN
        registers.put(part, value)
        return None

    return step


def _ct_step(one: Expression) -> Step:
    part, key = _PART[one.number(1)], one.number(2)
    other_family = {20: 6, 22: 4}.get(key, 0)

    def step(_: Moment, registers: Registers, packet: Packet, __: Table) -> Verdict | None:
        if packet.flow.version == other_family:
            return _BROKEN
        dialled = packet.flow.dialled
        if key in (0, 2):
            registers.put(part, (_NEW if key == 0 else packet.status).to_bytes(4, _ORDER))
        elif key == 12:
            registers.put(part, dialled.port.to_bytes(2, "big"))
        else:
            registers.put(part, dialled.packed)
        return None

    assert key in (0, 2, 12, 20, 22), f"ct {key}"
    return step


def _payload_step(one: Expression) -> Step:
    register, base, offset, width = one.first_numbers
    assert base in (1, 2), f"base {base}"
    part, end = _PART[register], offset + width

    def step(_: Moment, registers: Registers, packet: Packet, __: Table) -> Verdict | None:
        headers = packet.headers()
        data = (headers[1] if base == 1 else headers[2])[offset:end]
        if len(data) < width:
            return _BROKEN
        registers.put(part, data)
        return None

    return step


def _socket_step(one: Expression) -> Step:
    assert one.number(1) == 0, "socket wildcard"
    part = _PART[one.number(2)]

    def step(_: Moment, registers: Registers, packet: Packet, __: Table) -> Verdict | None:
        is_transparent = packet.socket_at(packet.flow.protocol, packet.to.port)
        if is_transparent is None:
            return _BROKEN
        registers.put(part, bytes([is_transparent]))
        return None

    return step


def _fib_step(one: Expression) -> Step:
    assert one.number(2) == 3, "fib type"
    part, is_of_target = _PART[one.number(1)], one.number(3) & 2

    def step(_: Moment, registers: Registers, packet: Packet, __: Table) -> None:
        ip = packet.to.ip if is_of_target else packet.flow.client.ip
        kind = _LOCAL if packet.is_local(ip) else _UNICAST
        registers.put(part, kind.to_bytes(4, _ORDER))

    return step


def _cmp_step(one: Expression) -> Step:
    part, compare = _PART[one.number(1)], _COMPARISONS[one.number(2)]
    value, width = one.value, len(one.value)

    def step(_: Moment, registers: Registers, *__: object) -> Verdict | None:
        return None if compare(registers.get(part, width), value) else _BROKEN

    return step


def _bitwise_step(one: Expression) -> Step:
    kept, flipped = one.masks
    width, mask, flip = len(kept), int.from_bytes(kept, "big"), int.from_bytes(flipped, "big")
    from_part, part = _PART[one.number(1)], _PART[one.number(2)]

    def step(_: Moment, registers: Registers, __: Packet, ___: Table) -> None:
        changed = int.from_bytes(registers.get(from_part, width), "big") & mask ^ flip
        registers.put(part, changed.to_bytes(width, "big"))

    return step


def _lookup_step(one: Expression) -> Step:
    name, part, is_inverted = one.set_name, _PART[one.number(2)], bool(one.number(5) & 1)
    to = one.number(3) if one.has(3) else None

    def step(moment: Moment, registers: Registers, _: Packet, table: Table) -> Verdict | None:
        looked_up = table.sets[name]
        element = moment.find(looked_up, registers.get(part, looked_up.key_bytes))
        if (element is not None) == is_inverted:
            return _BROKEN
        if element is None:
            return None
        if element.packets is not None and moment.has_effects:
            element.packets += 1
        if to is not None:
            if element.verdict is not None:
                return element.verdict
            registers.put(_PART[to], element.value)
        return None

    return step


def _immediate_step(one: Expression) -> Step:
    verdict, value = one.verdict, one.value
    if verdict is not None:
        return lambda *_: verdict
    part = _PART[one.number(1)]

    def step(_: Moment, registers: Registers, __: Packet, ___: Table) -> None:
        registers.put(part, value)

    return step


def _redir_step(one: Expression) -> Step:
    part = _PART[one.number(1)]

    def step(_: Moment, registers: Registers, packet: Packet, __: Table) -> Verdict | None:
        if not packet.address_here:
            return _DROPPED
        port = int.from_bytes(registers.get(part, 2), "big")
        packet.to = Place(packet.address_here, port)
        packet.has_translated = True
        return _ACCEPTED

    return step


def _nat_step(one: Expression) -> Step:
    assert one.number(1) == 1, "only the destination is translated"
    is_ipv4 = one.number(2) == socket.AF_INET
    ip_part, port_part = _PART[one.number(3)], _PART[one.number(5)] if one.has(5) else None
    assert not one.has(6), "no range of ports is moved"

    def step(_: Moment, registers: Registers, packet: Packet, __: Table) -> Verdict | None:
        if is_ipv4 != (packet.flow.version == 4):
            return None
        ip = _text_of(registers.get(ip_part, 4 if is_ipv4 else 16))
        port = packet.flow.dialled.port
        if port_part is not None:
            port = int.from_bytes(registers.get(port_part, 2), "big")
        packet.to = Place(ip, port)
        packet.has_translated = True
        return _ACCEPTED

    return step


def _masq_step(_: Expression) -> Step:
    def step(_: Moment, __: Registers, packet: Packet, ___: Table) -> Verdict | None:
        packet.is_masqueraded = packet.has_translated = True
        return _ACCEPTED

    return step


def _numgen_step(one: Expression) -> Step:
    part, most, first = _PART[one.number(1)], one.number(2), one.number(4)

    def step(moment: Moment, registers: Registers, _: Packet, __: Table) -> None:
        registers.put(part, (moment.draw(most) + first).to_bytes(4, _ORDER))

    return step


def _hash_step(one: Expression) -> Step:
    from_part, part = _PART[one.number(1)], _PART[one.number(2)]
    width, most, seed, first = (one.number(kind) for kind in (3, 4, 5, 6))

    def step(_: Moment, registers: Registers, __: Packet, ___: Table) -> None:
        value = jhash(registers.get(from_part, width), seed)
        registers.put(part, ((value * most >> 32) + first).to_bytes(4, _ORDER))

    return step


def _dynset_step(one: Expression) -> Step:
    name, part, timeout_ms = one.set_name, _PART[one.number(4)], one.number(6)
    counts = bool(one.get(7))

    def step(moment: Moment, registers: Registers, _: Packet, table: Table) -> Verdict | None:
        changed = table.sets[name]
        key = registers.get(part, changed.key_bytes)
        element = moment.find(changed, key)
        if element is None and changed.size and len(changed.elements) >= changed.size:
            return _BROKEN
        if moment.has_effects:
            element = element or Element(key)
            element.expires_at = moment.now + timeout_ms / 1000
            element.packets = (element.packets or 0) + 1 if counts else None
            changed.elements[element.place] = element
        return None

    return step


_STEPS: dict[str, Callable[[Expression], Step]] = {
    "bitwise": _bitwise_step,
    "cmp": _cmp_step,
    "ct": _ct_step,
    "dynset": _dynset_step,
    # Loads an IPv6 extension header: no simulated packet has one.
    "exthdr": lambda _: lambda *_: _BROKEN,
    "fib": _fib_step,
    "hash": _hash_step,
    "immediate": _immediate_step,
    "lookup": _lookup_step,
    "masq": _masq_step,
    "meta": _meta_step,
    "nat": _nat_step,
    "numgen": _numgen_step,
    "payload": _payload_step,
    "redir": _redir_step,
    "reject": lambda _: lambda *_: _REFUSED,
    "socket": _socket_step,
    # Rules' counters aren't read, and flows are always tracked here.
    "counter": lambda _: lambda *_: None,
    "notrack": lambda _: lambda *_: None,
}
_text_of = functools.cache(lambda packed: str(ipaddress.ip_address(packed)))
_IPV4, _IPV6 = bytes([socket.AF_INET]), bytes([socket.AF_INET6])
_PROTOCOLS = {6: b"\x06", 17: b"\x11"}


def metadata(key: int, packet: Packet) -> bytes | None:
    """Return the value of a packet's metadata key; None if the packet has none."""
    # Cost: the keys that most rules use come first.
    if key == 15:
        return _IPV4 if packet.flow.version == 4 else _IPV6
    if key == 16:
        return _PROTOCOLS[packet.flow.protocol]
    way_in, way_out = packet.in_link, packet.out_link
    if key in (8, 26):
        if way_in is None:
            return None
        if key == 8:
            return way_in.type.to_bytes(2, _ORDER)
        return way_in.kind.encode().ljust(_KIND_BYTES, b"\0") if way_in.kind else None
    if key in (6, 7):
        link = way_in if key == 6 else way_out
        return (link.name if link else "").encode().ljust(16, b"\0")
    return {
        3: packet.mark.to_bytes(4, _ORDER),
        4: (way_in.number if way_in else 0).to_bytes(4, _ORDER),
        5: (way_out.number if way_out else 0).to_bytes(4, _ORDER),
        19: bytes([0]),
    }[key]
