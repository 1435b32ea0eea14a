"""Writes and reads nat rules as the kernel's bytes, by a pattern that python-iptables makes.

python-iptables needs 0.2 to 0.5 ms for a rule, so 5 s for 10,000 Services. Rules of one form
differ in three or four fields only: it makes a few samples, and the places in which they differ
are where the fields stand. Rules are copies of the sample with the fields put in; 2 µs each.

Rule 1: no offset of a kernel structure is written down here; all are found, and proved by one
more sample.
Rule 2: what isn't byte for byte what we would write is not ours.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from typing import NamedTuple

from .rules import Jump, NatRule

# Samples whose fields differ in every byte, so that all of a field's bytes show.
_IPS = {
    4: ("17.18.19.20", "33.34.35.36", "49.50.51.52", "65.66.67.68"),
    6: ("1112:1314:1516:1718:191a:1b1c:1d1e:1f20", "2122:2324:2526:2728:292a:2b2c:2d2e:2f30"),
}
_PORT, _OTHER_PORT = 0x1122, 0x3344
_TO_PORT, _OTHER_TO_PORT = 0x5566, 0x7788
# An address that both of the other sample's networks begin with, and lengths of prefixes whose
# masks differ in every byte.
_NETWORKS = {4: "16.0.0.0", 6: "1000::"}
_BITS = {4: (30, 6), 6: (126, 6)}
_OTHER_NETWORKS = {4: "33.34.35.36", 6: "2122:2324:2526:2728:292a:2b2c:2d2e:2f30"}


class FormError(Exception):
    """The samples don't differ in the way that they should."""


class _Slot(NamedTuple):
    """One place of a field."""

    start: int
    stop: int
    is_little_endian: bool


class PortForm:
    """The bytes of rules that differ in one port only.

    Args:
        build: Makes the bytes of the rule for a port, by python-iptables.

    Raises:
        FormError: The bytes are not understood.
    """

    def __init__(self, build: Callable[[int], bytes]) -> None:
        self._template = build(_PORT)
        changed = build(_OTHER_PORT)
        self._slots = _slots(
            self._template, changed, _PORT.to_bytes(2, "big"), _OTHER_PORT.to_bytes(2, "big")
        )

    def read(self, raw: bytes) -> int | None:
        """Return the port of a rule, or None if it is none of this form."""
        if len(raw) != len(self._template):
            return None
        value = _get(raw, self._slots)
        own = bytearray(self._template)
        _put(own, self._slots, value)
        return int.from_bytes(value, "big") if own == raw else None


class Form:
    """The bytes of all nat rules of one protocol and target.

    Args:
        build: Makes the bytes of one rule, by python-iptables.
        protocol: ``tcp`` or ``udp``.
        version: 4 or 6.
        is_dnat: DNAT to an address, or REDIRECT.

    Raises:
        FormError: The bytes are not understood; the rules must not be written.
    """

    def __init__(
        self, build: Callable[[NatRule], bytes], protocol: str, *, version: int, is_dnat: bool
    ) -> None:
        ips = _IPS[version]
        self._ip_family = socket.AF_INET6 if version == 6 else socket.AF_INET
        sample = NatRule(protocol, ips[0], _PORT, _TO_PORT, ips[2] if is_dnat else "")
        self.template = build(sample)
        self._protocol = protocol
        self._ip = self._find(build, sample, ip=ips[1])
        self._port = self._find(build, sample, port=_OTHER_PORT)
        self._to_port = self._find(build, sample, to_port=_OTHER_TO_PORT)
        self._to_ip = self._find(build, sample, to_ip=ips[3]) if is_dnat else []
        proof = NatRule(protocol, ips[1], 80, 36001, ips[3] if is_dnat else "")
        if self.write(proof) != build(proof) or self.read(build(proof)) != proof:
            raise FormError(f"cannot write {proof} by its form")

    def write(self, rule: NatRule) -> bytes:
        """Return a rule's bytes; its protocol and target must be the form's."""
        raw = bytearray(self.template)
        _put(raw, self._ip, socket.inet_pton(self._ip_family, rule.ip))
        _put(raw, self._port, rule.port.to_bytes(2, "big"))
        _put(raw, self._to_port, rule.to_port.to_bytes(2, "big"))
        if rule.to_ip:
            _put(raw, self._to_ip, socket.inet_pton(self._ip_family, rule.to_ip))
        return bytes(raw)

    def read(self, raw: bytes) -> NatRule | None:
        """Return the rule that these bytes are, or None if it is none of this form."""
        if len(raw) != len(self.template):
            return None
        rule = NatRule(
            self._protocol,
            socket.inet_ntop(self._ip_family, _get(raw, self._ip)),
            int.from_bytes(_get(raw, self._port), "big"),
            int.from_bytes(_get(raw, self._to_port), "big"),
            socket.inet_ntop(self._ip_family, _get(raw, self._to_ip)) if self._to_ip else "",
        )
        return rule if self.write(rule) == raw else None

    def _find(
        self, build: Callable[[NatRule], bytes], sample: NatRule, **other: str | int
    ) -> list[_Slot]:
        """Return the places in which the one field stands that ``other`` changes."""
        field, value = next(iter(other.items()))
        changed = build(sample._replace(**other))  # type: ignore[arg-type]
        have = self._encode(getattr(sample, field))
        return _slots(self.template, changed, have, self._encode(value))

    def _encode(self, value: str | int) -> bytes:
        if isinstance(value, int):
            return value.to_bytes(2, "big")
        return socket.inet_pton(self._ip_family, value)


class JumpForm:
    """The bytes of what all jumps of one kind match.

    Args:
        build: Makes those bytes of one jump, by python-iptables.
        protocol: ``tcp`` or ``udp`` for jumps of some ports; empty for those of a network.
        version: 4 or 6.

    Raises:
        FormError: The bytes are not understood; the jumps must not be written.
    """

    def __init__(self, build: Callable[[Jump], bytes], protocol: str, *, version: int) -> None:
        self._ip_family = socket.AF_INET6 if version == 6 else socket.AF_INET
        self._all_bits = 128 if version == 6 else 32
        bits, other_bits = (self._all_bits, 0) if protocol else _BITS[version]
        ports = (protocol, _PORT, _TO_PORT) if protocol else ()
        sample = Jump("", _NETWORKS[version], bits, *ports)
        self._protocol = protocol
        self._template = build(sample)
        self._ip = self._find(build, sample, ip=_OTHER_NETWORKS[version])
        self._mask: list[_Slot] = []
        self._first: list[_Slot] = []
        self._last: list[_Slot] = []
        if protocol:
            self._first = self._find(build, sample, first_port=_OTHER_PORT)
            self._last = self._find(build, sample, last_port=_OTHER_TO_PORT)
        else:
            self._mask = self._find(build, sample, bits=other_bits)
        proof = sample._replace(ip=_OTHER_NETWORKS[version])
        if protocol:
            proof = proof._replace(first_port=0, last_port=4095)
        if self.write(proof) != build(proof) or self.read(build(proof), "") != proof:
            raise FormError(f"cannot write {proof} by its form")

    def write(self, jump: Jump) -> bytes:
        """Return the bytes of what a jump matches; it must be of the form's kind."""
        raw = bytearray(self._template)
        _put(raw, self._ip, self._encode("ip", jump.ip))
        if self._protocol:
            _put(raw, self._first, self._encode("first_port", jump.first_port))
            _put(raw, self._last, self._encode("last_port", jump.last_port))
        else:
            _put(raw, self._mask, self._encode("bits", jump.bits))
        return bytes(raw)

    def read(self, raw: bytes, chain: str) -> Jump | None:
        """Return the jump to a chain that matches so, or None if it is none of this form."""
        if len(raw) != len(self._template):
            return None
        bits, ports = self._all_bits, ("", 0, 0)
        if self._protocol:
            first, last = (
                int.from_bytes(_get(raw, slots), "big") for slots in (self._first, self._last)
            )
            ports = (self._protocol, first, last)
        else:
            bits = int.from_bytes(_get(raw, self._mask), "big").bit_count()
        jump = Jump(chain, socket.inet_ntop(self._ip_family, _get(raw, self._ip)), bits, *ports)
        return jump if self.write(jump) == raw else None

    def _find(
        self, build: Callable[[Jump], bytes], sample: Jump, **other: str | int
    ) -> list[_Slot]:
        field, value = next(iter(other.items()))
        changed = build(sample._replace(**other))  # type: ignore[arg-type]
        have = self._encode(field, getattr(sample, field))
        return _slots(self._template, changed, have, self._encode(field, value))

    def _encode(self, field: str, value: str | int) -> bytes:
        if isinstance(value, str):
            return socket.inet_pton(self._ip_family, value)
        if field != "bits":
            return value.to_bytes(2, "big")
        ones = (1 << value) - 1
        return (ones << self._all_bits - value).to_bytes(self._all_bits // 8, "big")


def _slots(template: bytes, changed: bytes, have: bytes, other: bytes) -> list[_Slot]:
    """Return where a template has a value, by a sample that has another one there.

    Raises:
        FormError: The samples differ in more than that, or not at all.
    """
    slots = [
        _Slot(start, stop, template[start:stop] != have)
        for start, stop in _differences(template, changed, len(have))
    ]
    expected = bytearray(template)
    _put(expected, slots, other)
    if not slots or bytes(expected) != changed:
        raise FormError("samples of one form differ in more than one field")
    return slots


def _differences(one: bytes, two: bytes, size: int) -> Iterator[tuple[int, int]]:
    if len(one) != len(two):
        raise FormError("samples of one form differ in length")
    start = 0
    while start < len(one):
        if one[start] == two[start]:
            start += 1
            continue
        yield start, start + size
        start += size


def _put(raw: bytearray, slots: list[_Slot], value: bytes) -> None:
    for start, stop, is_little_endian in slots:
        raw[start:stop] = value[::-1] if is_little_endian else value


def _get(raw: bytes, slots: list[_Slot]) -> bytes:
    start, stop, is_little_endian = slots[0]
    return raw[start:stop][::-1] if is_little_endian else raw[start:stop]
