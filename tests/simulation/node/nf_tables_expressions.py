"""Interprets the expressions of rules for a packet, as the kernel's nft_do_chain() does.

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
from .netlink_routes import LOOPBACK, Link
from .nf_tables_state import (
    ACCEPT,
    CONTINUE,
    DROP,
    GOTO,
    INTERVAL,
    JUMP,
    PREROUTING,
    RETURN,
    Chain,
    Element,
    Expression,
    NftSet,
    Rule,
    Table,
    Verdict,
)

BREAK = -2
"""The next rule is evaluated."""
REJECTED = -100
"""Dropped, and the client is told."""
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
    """A first packet on its way."""

    def __init__(self, flow: Flow, to: Place, mark: int = 0) -> None:
        self.flow = flow
        self.to = to
        self.mark = mark
        self.hook = PREROUTING
        self.in_link: Link | None = None
        self.out_link: Link | None = None
        self.address_here = ""
        """Where ``redirect`` leads to."""
        self.has_translated = False
        """Whether a chain of this hook has."""
        self.is_translation_over = False
        self.is_masqueraded = False
        self.socket_at: Callable[[int, int], bool | None] = lambda _protocol, _port: None
        self.is_local: Callable[[str], bool] = lambda _ip: False
        self.tcp_flags = 0x02
        self._headers: tuple[Place, bytes, bytes] | None = None

    @property
    def status(self) -> int:
        """Return ``ct status``."""
        return DESTINATION_TRANSLATED if self.to != self.flow.dialled else 0

    def headers(self) -> tuple[Place, bytes, bytes]:
        """Return where it goes, and the headers of network and transport."""
        # Cost: most rules look at one of them.
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


class Evaluation:
    """Evaluates chains at one moment.

    Args:
        draw: Returns a number below another one, at random.
        has_effects: Whether counters count, and dynamic sets get elements.
    """

    def __init__(self, now: float, draw: Callable[[int], int], *, has_effects: bool) -> None:
        self._now = now
        self._draw = draw
        self._has_effects = has_effects

    def run(self, table: Table, chain: Chain, packet: Packet) -> int:
        """Return ACCEPT, DROP or REJECTED."""
        code = self._run(table, chain, packet)
        return chain.policy if code in (CONTINUE, RETURN) else code

    def _run(self, table: Table, chain: Chain, packet: Packet) -> int:
        for rule in chain.rules:
            verdict = self._rule(table, rule, packet)
            if verdict.code == CONTINUE:
                continue
            if verdict.code == JUMP:
                code = self._run(table, table.chains[verdict.chain], packet)
                if code not in (CONTINUE, RETURN):
                    return code
            elif verdict.code == GOTO:
                code = self._run(table, table.chains[verdict.chain], packet)
                return CONTINUE if code == RETURN else code
            elif verdict.code == RETURN:
                return RETURN
            elif verdict.code != BREAK:
                return verdict.code
        return CONTINUE

    def _rule(self, table: Table, rule: Rule, packet: Packet) -> Verdict:
        # Cost: half of all rules end here.
        if rule.guard is not None and _meta(rule.guard[0], packet) != rule.guard[1]:
            return _VERDICTS[BREAK]
        registers = Registers()
        for one in rule.expressions:
            found = _STEPS[one.name](self, one, registers, packet, table)
            if found is not None:
                verdict = found if isinstance(found, Verdict) else _VERDICTS[found]
                if verdict.code != CONTINUE:
                    return verdict
        return _VERDICTS[CONTINUE]

    def _meta(self, one: Expression, registers: Registers, packet: Packet, _: Table) -> int | None:
        register, key, source = one.first_numbers[:3]
        if source:
            assert key == 3, f"meta {key} is set"
            packet.mark = int.from_bytes(registers.get(source, 4), _ORDER)
            return None
        value = _meta(key, packet)
        if value is None:
            return BREAK
        registers.put(register, value)
        return None

    def _ct(self, one: Expression, registers: Registers, packet: Packet, _: Table) -> int | None:
        key, dialled = one.number(2), packet.flow.dialled
        values = {
            0: _NEW.to_bytes(4, _ORDER),
            2: packet.status.to_bytes(4, _ORDER),
            12: dialled.port.to_bytes(2, "big"),
            20: dialled.packed,
            22: dialled.packed,
        }
        is_other_family = (key, packet.flow.version) in ((20, 6), (22, 4))
        if is_other_family:
            return BREAK
        registers.put(one.number(1), values[key])
        return None

    def _payload(
        self, one: Expression, registers: Registers, packet: Packet, _: Table
    ) -> int | None:
        register, base, offset, width = one.first_numbers
        assert base in (1, 2), f"base {base}"
        headers = packet.headers()
        data = (headers[1] if base == 1 else headers[2])[offset : offset + width]
        if len(data) < width:
            return BREAK
        registers.put(register, data)
        return None

    def _socket(
        self, one: Expression, registers: Registers, packet: Packet, _: Table
    ) -> int | None:
        is_transparent = packet.socket_at(packet.flow.protocol, packet.to.port)
        if is_transparent is None:
            return BREAK
        assert one.number(1) == 0, "socket wildcard"
        registers.put(one.number(2), bytes([is_transparent]))
        return None

    def _fib(self, one: Expression, registers: Registers, packet: Packet, _: Table) -> int | None:
        assert one.number(2) == 3, "fib type"
        ip = packet.to.ip if one.number(3) & 2 else packet.flow.client.ip
        kind = _LOCAL if packet.is_local(ip) else _UNICAST
        registers.put(one.number(1), kind.to_bytes(4, _ORDER))
        return None

    def _cmp(self, one: Expression, registers: Registers, *_: object) -> int | None:
        value = one.value
        register, kind = one.first_numbers[:2]
        have = registers.get(register, len(value))
        return None if _COMPARISONS[kind](have, value) else BREAK

    def _bitwise(self, one: Expression, registers: Registers, _: Packet, __: Table) -> None:
        mask, flip = one.masks
        width = len(mask)
        have = int.from_bytes(registers.get(one.number(1), width), "big")
        changed = have & int.from_bytes(mask, "big") ^ int.from_bytes(flip, "big")
        registers.put(one.number(2), changed.to_bytes(width, "big"))

    def _lookup(
        self, one: Expression, registers: Registers, _: Packet, table: Table
    ) -> Verdict | int | None:
        looked_up = table.sets[one.set_name]
        element = self._find(looked_up, registers.get(one.number(2), looked_up.key_bytes))
        is_inverted = bool(one.number(5) & 1)
        if (element is not None) == is_inverted:
            return BREAK
        if element is None:
            return None
        if element.packets is not None and self._has_effects:
            element.packets += 1
        if one.has(3):
            if element.verdict is not None:
                return element.verdict
            registers.put(one.number(3), element.value)
        return None

    def _find(self, looked_up: NftSet, key: bytes) -> Element | None:
        if looked_up.flags & INTERVAL:
            before = [e for e in looked_up.elements.values() if e.key <= key]
            last = max(before, key=lambda e: (e.key, not e.is_end), default=None)
            return None if last is None or last.is_end else last
        found = looked_up.elements.get((key, False))
        is_over = found is not None and 0 < found.expires_at <= self._now
        return None if is_over else found

    def _immediate(
        self, one: Expression, registers: Registers, _: Packet, __: Table
    ) -> Verdict | None:
        if (verdict := one.verdict) is not None:
            return verdict
        registers.put(one.number(1), one.value)
        return None

    def _redir(self, one: Expression, registers: Registers, packet: Packet, _: Table) -> int:
        if not packet.address_here:
            return DROP
        port = int.from_bytes(registers.get(one.number(1), 2), "big")
        packet.to = Place(packet.address_here, port)
        packet.has_translated = True
        return ACCEPT

    def _nat(self, one: Expression, registers: Registers, packet: Packet, _: Table) -> int | None:
        family = one.number(2)
        if (family == socket.AF_INET) != (packet.flow.version == 4):
            return None
        width = 4 if family == socket.AF_INET else 16
        ip = _text_of(registers.get(one.number(3), width))
        port = int.from_bytes(registers.get(one.number(5), 2), "big")
        assert one.number(1) == 1, "only the destination is translated"
        packet.to = Place(ip, port)
        packet.has_translated = True
        return ACCEPT

    def _masq(self, _: Expression, __: Registers, packet: Packet, ___: Table) -> int:
        packet.is_masqueraded = packet.has_translated = True
        return ACCEPT

    def _reject(self, *_: object) -> int:
        return REJECTED

    def _notrack(self, *_: object) -> None:
        """Flows are tracked in this world."""

    def _counter(self, *_: object) -> None:
        """A rule's own counter isn't read."""

    def _numgen(self, one: Expression, registers: Registers, _: Packet, __: Table) -> None:
        number = self._draw(one.number(2)) + one.number(4)
        registers.put(one.number(1), number.to_bytes(4, _ORDER))

    def _hash(self, one: Expression, registers: Registers, _: Packet, __: Table) -> None:
        value = jhash(registers.get(one.number(1), one.number(3)), one.number(5))
        number = (value * one.number(4) >> 32) + one.number(6)
        registers.put(one.number(2), number.to_bytes(4, _ORDER))

    def _dynset(self, one: Expression, registers: Registers, _: Packet, table: Table) -> int | None:
        changed = table.sets[one.set_name]
        key = registers.get(one.number(4), changed.key_bytes)
        timeout_ms = one.number(6)
        element = self._find(changed, key)
        if element is None and changed.size and len(changed.elements) >= changed.size:
            return BREAK
        if self._has_effects:
            element = element or Element(key)
            element.timeout_ms = timeout_ms
            element.expires_at = self._now + timeout_ms / 1000
            changed.elements[element.place] = element
        return None


class Registers:
    """Sixteen parts of four bytes, of which each must be written before it is read."""

    __slots__ = ("_bytes", "_written")

    def __init__(self) -> None:
        self._bytes = bytearray(64)
        self._written = 0
        """A bit for each part."""

    def put(self, register: int, value: bytes) -> None:
        part, count = _PART[register], (len(value) + 3) >> 2
        self._bytes[part * 4 : (part + count) * 4] = value.ljust(count * 4, b"\0")
        self._written |= ((1 << count) - 1) << part

    def get(self, register: int, width: int) -> bytes:
        part, count = _PART[register], (width + 3) >> 2
        parts = ((1 << count) - 1) << part
        assert self._written & parts == parts, f"register {register} is read, but not written"
        return bytes(self._bytes[part * 4 : part * 4 + width])


# The first part of each register: NFT_REG_1 to 4 have sixteen bytes, NFT_REG32_00 to 15 four.
_PART = {register: (register - 1) * 4 for register in range(1, 5)} | {
    register: register - 8 for register in range(8, 24)
}
_VERDICTS = {code: Verdict(code) for code in (ACCEPT, BREAK, CONTINUE, DROP, REJECTED, RETURN)}
_Step = Callable[[Evaluation, Expression, Registers, Packet, Table], Verdict | int | None]
_STEPS: dict[str, _Step] = {
    name[1:]: step
    for name, step in vars(Evaluation).items()
    if name[1:] in {
        "bitwise", "cmp", "counter", "ct", "dynset", "fib", "hash", "immediate", "lookup", "masq",
        "meta", "nat", "notrack", "numgen", "payload", "redir", "reject", "socket",
    }
}  # fmt: skip
_text_of = functools.cache(lambda packed: str(ipaddress.ip_address(packed)))
_IPV4, _IPV6 = bytes([socket.AF_INET]), bytes([socket.AF_INET6])
_PROTOCOLS = {6: b"\x06", 17: b"\x11"}


def _meta(key: int, packet: Packet) -> bytes | None:
    """Return a packet's metadata; None: it has none."""
    # Those that most rules look at.
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


__all__ = ["LOOPBACK", "Evaluation", "Packet", "Registers"]
