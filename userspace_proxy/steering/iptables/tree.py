"""Lays nat rules out as a tree of chains, so that no packet walks past more than a few dozen.

    ROOT     -d 10.96.0.0/16 -j 8…          jumps say what is behind them, so a packet for
    8…       -d 10.96.0.0/18 -j 9…          somebody else leaves after the root's four rules
             -d 10.96.64.0/18 -j 9…
    d…       -d 10.96.7.1/32 -p tcp -m tcp --dport 80 -j REDIRECT …       up to LEAF rules

A rule's key is its address, protocol and port as one number; a chain is a prefix of it. A chain
of more than LEAF rules is divided by the next bits, and prefixes that all have in common are
skipped: Services of a /16 or a /112, addresses from anywhere, and ten thousand node ports on one
address all get a tree of their own. Up to LEAF rules need no tree.

Rule 1: the layout depends on the rules alone, never on how they came.
Rule 2: a chain's name has its level, and jumps lead to deeper levels only, so chains of one name
just hold the lines of both. Of two chains of a level that is one case in a million; a level of a
thousand has such a pair every other time.
"""

from __future__ import annotations

import hashlib
import socket
import string
from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from .rules import PROTOCOLS, Jump, NatFrontend, NatRule

ROOT = ""
# A chain of so many rules isn't divided: a walk to its end takes about a microsecond.
LEAF = 16
_PORT_BITS, _PROTOCOL_BITS = 16, 2
_BEHIND_IP = _PORT_BITS + _PROTOCOL_BITS
_NAMES = string.digits + string.ascii_lowercase + string.ascii_uppercase
_HASH_DIGITS = 4
_BASE_32 = (string.digits + string.ascii_lowercase)[:32]

Line = NatRule | Jump
Place = tuple[str, Line]
"""A chain and a line of it."""


def _levels(ip_bits: int) -> tuple[int, ...]:
    """Return the lengths of prefixes that may be chains; each has a letter of its own."""
    # Two bits at once are the shortest walk. The half of an IPv6 address that no Service range
    # reaches into goes by four: there are 62 letters.
    routed = ip_bits - 64 if ip_bits > 64 else 0
    ip = (*range(0, routed, 4), *range(routed, ip_bits, 2))
    return (*ip, ip_bits, *range(ip_bits + _PROTOCOL_BITS, ip_bits + _BEHIND_IP, 2))


class Difference(NamedTuple):
    """What a change of rules changes in the chains."""

    gone: set[Place]
    come: set[Place]


class Tree:
    """The chains of one set of rules; their names lack prefix and side.

    Args:
        version: 4 or 6.
        rules: No two of one frontend.
    """

    def __init__(self, version: int, rules: Iterable[NatRule] = ()) -> None:
        self._family = socket.AF_INET6 if version == 6 else socket.AF_INET
        self._ip_bits = 128 if version == 6 else 32
        self._bits = self._ip_bits + _BEHIND_IP
        self._levels = _levels(self._ip_bits)
        self._rules = {self._key(rule.frontend): rule for rule in rules}
        self._keys = sorted(self._rules)

    def rules(self) -> Iterable[NatRule]:
        """Return the rules, in no order."""
        return self._rules.values()

    def places(self) -> Iterator[Place]:
        """Yield every line of every chain, each chain's in the order of addresses."""
        return self._below(0, len(self._keys), 0, ROOT)

    def change(self, gone: Iterable[NatFrontend], come: Iterable[NatRule]) -> Difference:
        """Take some rules out and put some in, or in the place of those of their frontend.

        Returns:
            What that changes; it costs some 100 µs a rule, whatever the number of rules.
        """
        difference = Difference(set(), set())
        for frontend in gone:
            self._set(self._key(frontend), None, difference)
        for rule in come:
            self._set(self._key(rule.frontend), rule, difference)
        return difference

    def _set(self, key: int, rule: NatRule | None, difference: Difference) -> None:
        before = set(self._around(key))
        if rule is None:
            if self._rules.pop(key, None) is not None:
                del self._keys[bisect_left(self._keys, key)]
        else:
            if key not in self._rules:
                insort(self._keys, key)
            self._rules[key] = rule
        after = set(self._around(key))
        for place in before - after:
            if place in difference.come:
                difference.come.remove(place)
            else:
                difference.gone.add(place)
        for place in after - before:
            if place in difference.gone:
                difference.gone.remove(place)
            else:
                difference.come.add(place)

    def _around(self, key: int) -> Iterator[Place]:
        """Yield all places that may change with a key's rule: its path, and where that divides."""
        start, stop, level, chain = 0, len(self._keys), 0, ROOT
        while True:
            others = stop - start - (key in self._rules)
            if others <= LEAF:
                # It is divided with the key, or would be.
                yield from self._below(start, stop, level, chain)
                return
            if key >> self._behind(level) != self._keys[start] >> self._behind(level):
                return
            on_path = None
            for first, last in self._groups(start, stop, level):
                line = self._line(first, last)
                yield chain, line
                behind = self._behind(level + 1)
                if isinstance(line, Jump) and key >> behind == self._keys[first] >> behind:
                    on_path = first, last, self._level(first, last), line.chain
            if on_path is None:
                return
            start, stop, level, chain = on_path

    def _below(self, start: int, stop: int, level: int, chain: str) -> Iterator[Place]:
        if stop - start <= LEAF:
            for key in self._keys[start:stop]:
                yield chain, self._rules[key]
            return
        for first, last in self._groups(start, stop, level):
            line = self._line(first, last)
            yield chain, line
            if isinstance(line, Jump):
                yield from self._below(first, last, self._level(first, last), line.chain)

    def _groups(self, start: int, stop: int, level: int) -> Iterator[tuple[int, int]]:
        """Yield the spans of keys that have the next bits in common."""
        behind = self._behind(level + 1)
        while start < stop:
            after = ((self._keys[start] >> behind) + 1) << behind
            last = bisect_left(self._keys, after, start, stop)
            yield start, last
            start = last

    def _line(self, start: int, stop: int) -> Line:
        """Return what leads to a span of keys: the rule itself if it is one."""
        first = self._keys[start]
        if stop - start == 1:
            return self._rules[first]
        level = self._level(start, stop)
        behind = self._behind(level)
        prefix = first >> behind
        bits = self._levels[level]
        ip = self._ip((prefix << behind) >> _BEHIND_IP)
        chain = f"{_NAMES[level]}{_hash(prefix)}"
        if bits <= self._ip_bits:
            return Jump(chain, ip, bits)
        ports = (1 << _PORT_BITS) - 1
        low = (prefix << behind) & ports
        protocol = PROTOCOLS[(first >> _PORT_BITS) & ((1 << _PROTOCOL_BITS) - 1)]
        return Jump(chain, ip, self._ip_bits, protocol, low, low | ((1 << behind) - 1) & ports)

    def _level(self, start: int, stop: int) -> int:
        """Return the deepest level whose prefix all keys of a span have in common."""
        differing = (self._keys[start] ^ self._keys[stop - 1]).bit_length()
        return bisect_right(self._levels, self._bits - differing) - 1

    def _behind(self, level: int) -> int:
        """Return how many bits of a key a level's prefix leaves out."""
        return self._bits - self._levels[level] if level < len(self._levels) else 0

    def _key(self, frontend: NatFrontend) -> int:
        ip = int.from_bytes(socket.inet_pton(self._family, frontend.ip), "big")
        protocol = PROTOCOLS.index(frontend.protocol)
        return (ip << _PROTOCOL_BITS | protocol) << _PORT_BITS | frontend.port

    def _ip(self, number: int) -> str:
        return socket.inet_ntop(self._family, number.to_bytes(self._ip_bits // 8, "big"))


def _hash(prefix: int) -> str:
    digest = hashlib.sha256(prefix.to_bytes(20, "big")).digest()
    number = int.from_bytes(digest[:4], "big")
    return "".join(_BASE_32[number >> 5 * i & 31] for i in range(_HASH_DIGITS))
