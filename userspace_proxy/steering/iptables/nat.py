"""Lays out the chains of the nat table, which send packets to the proxy ports; pure.

    PREROUTING ─▶ UPROXY-PRE ─▶ ┐
                                ├ UPROXY-O…   a tree of chains with REDIRECT rules
    OUTPUT ─────▶ UPROXY-OUT ─▶ ┘ UPROXY-R…   then a tree for port ranges

    ROOT     -d 10.96.0.0/16 -j 8…          a jump's condition covers all rules behind it, so other
    8…       -d 10.96.0.0/18 -j 9…          packets leave after the root's four rules
             -d 10.96.64.0/18 -j 9…
    d…       -d 10.96.7.1/32 -p tcp -m tcp --dport 80 -j REDIRECT …       up to LEAF rules

While PREROUTING needs DNAT, it has trees of its own: UPROXY-P… and UPROXY-Q….

A rule's key is its address, protocol and port as one number; a chain is a prefix of keys. A chain
of more than LEAF rules is divided by the next bits, and common prefixes are skipped, so the tree
suits Services in a /16 or a /112, scattered addresses, and ten thousand node ports on one address.
A packet passes at most a few dozen rules. The tree for port ranges is divided only by addresses, so
a packet passes all ranges of its destination address.

Rule 1: the layout depends only on the rules, not on the order of changes.
Rule 2: the lines of a chain are sorted, so equal rules give equal chains. In the first two chains,
rules for port ranges come last, so that single ports take precedence.
Rule 3: a chain's name contains its level, and jumps go only to deeper levels, so a collision of two
names is harmless: one chain then contains the lines of both chains. Its probability is one in a
million for two chains of a level, and 38 % for a level of a thousand chains.
"""

from __future__ import annotations

import hashlib
import socket
import string
from bisect import bisect_left, bisect_right, insort
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import NamedTuple

from ...model import Frontend, pack_ip
from .legacy_table import Chains
from .rules import OUT, PRE, PREFIX, PROTOCOLS, Jump, NatRule

# The maximum number of changes to a layout; with more, a new layout is less work.
LAY_OUT_ABOVE = 200
ROOT = ""
# The maximum number of rules in an undivided chain: a packet passes them in about 1 µs.
LEAF = 16
_PORT_BITS, _PROTOCOL_BITS = 16, 2
_BEHIND_IP = _PORT_BITS + _PROTOCOL_BITS
_NAMES = string.digits + string.ascii_lowercase + string.ascii_uppercase
_HASH_DIGITS = 4
_BASE_32 = (string.digits + string.ascii_lowercase)[:32]

Line = NatRule | Jump
ChainLine = tuple[str, Line]
"""A chain, and one of its lines."""


class NatChains:
    """The chains of one set of rules.

    Args:
        rules: REDIRECT rules, one for each frontend.
        to_ip: The address for DNAT in PREROUTING; empty for REDIRECT to the interface's address.
    """

    def __init__(self, version: int, rules: Iterable[NatRule] = (), to_ip: str = "") -> None:
        single, ranges = _by_kind(rules)
        self._single = _TreeChains(version, single, to_ip)
        self._ranges = _TreeChains(version, ranges, to_ip, has_ranges=True)
        self.chains: Chains = self._join()
        """The lines of each chain; replaced when they change, never modified."""

    def change(self, removed: Iterable[NatRule], added: Iterable[NatRule]) -> None:
        """Remove and add rules; an added rule may replace the removed rule of the same frontend."""
        trees = self._single, self._ranges
        for tree, gone, new in zip(trees, _by_kind(removed), _by_kind(added), strict=True):
            if gone or new:
                tree.change(gone, new)
        self.chains = self._join()

    def _join(self) -> Chains:
        single, ranges = self._single.chains, self._ranges.chains
        both = {chain: (*single[chain], *ranges[chain]) for chain in (PRE, OUT)}
        return {**single, **ranges, **both}


def _by_kind(rules: Iterable[NatRule]) -> tuple[list[NatRule], list[NatRule]]:
    """Return the rules for single ports, and the rules for ranges."""
    found: tuple[list[NatRule], list[NatRule]] = [], []
    for rule in rules:
        found[bool(rule.last)].append(rule)
    return found


class _TreeChains:
    """The chains of one tree, whose rules are all for ranges of ports, or all for single ports."""

    def __init__(
        self, version: int, rules: Iterable[NatRule], to_ip: str, *, has_ranges: bool = False
    ) -> None:
        self._version = version
        self._to_ip = to_ip
        self._has_ranges = has_ranges
        self._out, self._pre = "RQ" if has_ranges else "OP"
        if not to_ip:
            self._pre = self._out
        self._tree = Tree(version, rules, has_ranges=has_ranges)
        self.chains = self._lay_out()

    def change(self, removed: Collection[NatRule], added: Collection[NatRule]) -> None:
        replaced = {rule.frontend for rule in added}
        gone = [rule.frontend for rule in removed if rule.frontend not in replaced]
        if len(removed) + len(added) > LAY_OUT_ABOVE:
            rules = {rule.frontend: rule for rule in (*self._tree.rules(), *added)}
            for frontend in gone:
                rules.pop(frontend, None)
            self._tree = Tree(self._version, rules.values(), has_ranges=self._has_ranges)
            self.chains = self._lay_out()
            return
        change = self._tree.change(gone, added)
        changed: dict[str, set[str]] = {}
        for chain, line in self._sides(change.removed):
            self._lines_of(chain, changed).discard(line)
        for chain, line in self._sides(change.added):
            self._lines_of(chain, changed).add(line)
        chains = {**self.chains, **{chain: tuple(sorted(changed[chain])) for chain in changed}}
        self.chains = {c: lines for c, lines in chains.items() if lines or c in (PRE, OUT)}

    def _lay_out(self) -> Chains:
        lines: dict[str, list[str]] = {PRE: [], OUT: []}
        for chain, line in self._sides(self._tree.lines()):
            lines.setdefault(chain, []).append(line)
        return {chain: tuple(sorted(lines[chain])) for chain in lines}

    def _lines_of(self, chain: str, changed: dict[str, set[str]]) -> set[str]:
        return changed.setdefault(chain, set(self.chains.get(chain, ())))

    def _sides(self, lines: Iterable[ChainLine]) -> Iterator[tuple[str, str]]:
        """Yield lines of the tree as the table contains them, by chain and text, for each side."""
        for chain, line in lines:
            if chain == ROOT:
                yield PRE, self._on_side(line, self._pre)
                yield OUT, self._on_side(line, self._out)
            else:
                for side in {self._out, self._pre}:
                    yield f"{PREFIX}{side}{chain}", self._on_side(line, side)

    def _on_side(self, line: Line, side: str) -> str:
        if isinstance(line, Jump):
            return str(line._replace(chain=f"{PREFIX}{side}{line.chain}"))
        return str(line._replace(to_ip=self._to_ip) if side != self._out else line)


class TreeChange(NamedTuple):
    """The lines that a change of rules removes and adds."""

    removed: set[ChainLine]
    added: set[ChainLine]


class Tree:
    """The chains for one rule per frontend; their names lack the prefix and the side.

    Args:
        has_ranges: Whether the rules are for ranges of ports, which are divided only by address.
    """

    def __init__(
        self, version: int, rules: Iterable[NatRule] = (), *, has_ranges: bool = False
    ) -> None:
        self._family = socket.AF_INET6 if version == 6 else socket.AF_INET
        self._ip_bits = 128 if version == 6 else 32
        self._bits = self._ip_bits + _BEHIND_IP
        levels = _levels(self._ip_bits)
        self._levels = levels[: levels.index(self._ip_bits) + 1] if has_ranges else levels
        self._rules = {self._key(rule.frontend): rule for rule in rules}
        self._keys = sorted(self._rules)

    def rules(self) -> Iterable[NatRule]:
        return self._rules.values()

    def lines(self) -> Iterator[ChainLine]:
        """Yield every line of every chain; the chains are in the order of their addresses."""
        return self._below(0, len(self._keys), 0, ROOT)

    def change(self, gone: Iterable[Frontend], added: Iterable[NatRule]) -> TreeChange:
        """Remove, add and replace rules, in about 100 µs each; return the changed lines."""
        change = TreeChange(set(), set())
        for frontend in gone:
            self._set(self._key(frontend), None, change)
        for rule in added:
            self._set(self._key(rule.frontend), rule, change)
        return change

    def _set(self, key: int, rule: NatRule | None, change: TreeChange) -> None:
        before = set(self._around(key))
        if rule is None:
            if self._rules.pop(key, None) is not None:
                del self._keys[bisect_left(self._keys, key)]
        else:
            if key not in self._rules:
                insort(self._keys, key)
            self._rules[key] = rule
        after = set(self._around(key))
        for lines, done, opposite in (
            (before - after, change.removed, change.added),
            (after - before, change.added, change.removed),
        ):
            done |= lines - opposite
            opposite -= lines

    def _around(self, key: int) -> Iterator[ChainLine]:
        """Yield the lines that a key's rule may affect: on its path, or in a chain it divides."""
        start, stop, level, chain = 0, len(self._keys), 0, ROOT
        while True:
            others = stop - start - (key in self._rules)
            if others <= LEAF:
                # This key alone may determine whether the chain is divided, so yield all lines
                # below it.
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

    def _below(self, start: int, stop: int, level: int, chain: str) -> Iterator[ChainLine]:
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
        """Yield the spans of keys whose next bits are equal."""
        behind = self._behind(level + 1)
        while start < stop:
            after = ((self._keys[start] >> behind) + 1) << behind
            last = bisect_left(self._keys, after, start, stop)
            yield start, last
            start = last

    def _line(self, start: int, stop: int) -> Line:
        """Return the jump to a span of keys, or the rule itself if there is only one."""
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
        """Return the deepest level at which all keys of a span have the same prefix."""
        differing = (self._keys[start] ^ self._keys[stop - 1]).bit_length()
        return bisect_right(self._levels, self._bits - differing) - 1

    def _behind(self, level: int) -> int:
        """Return the number of key bits after a level's prefix."""
        return self._bits - self._levels[level] if level < len(self._levels) else 0

    def _key(self, frontend: Frontend) -> int:
        ip = int.from_bytes(pack_ip(frontend.ip), "big")
        protocol = PROTOCOLS.index(frontend.protocol.lower())
        return (ip << _PROTOCOL_BITS | protocol) << _PORT_BITS | frontend.port

    def _ip(self, number: int) -> str:
        return socket.inet_ntop(self._family, number.to_bytes(self._ip_bits // 8, "big"))


def reached_rules(chains: Chains) -> Mapping[str, list[NatRule]]:
    """Return the rules that packets reach through the jumps in PRE, and in OUT, by chain."""
    return {chain: list(_reached(chains, chain, ())) for chain in (PRE, OUT)}


def all_rules(chains: Chains) -> list[NatRule]:
    """Return the rules of all chains of this proxy, whether or not a jump reaches them."""
    ours = (lines for chain, lines in chains.items() if chain.startswith(PREFIX))
    return rules_among(line for lines in ours for line in lines)


def rules_among(lines: Iterable[str]) -> list[NatRule]:
    """Return the NAT rules among these lines."""
    return [rule for line in lines if (rule := NatRule.parse(line)) is not None]


def _reached(chains: Chains, chain: str, path: tuple[Jump, ...]) -> Iterator[NatRule]:
    for line in chains.get(chain, ()):
        if jump := Jump.parse(line):
            yield from _reached(chains, jump.chain, (*path, jump))
            continue
        rule = NatRule.parse(line)
        if rule is not None and all(jump.covers(rule) for jump in path):
            yield rule


def _levels(ip_bits: int) -> tuple[int, ...]:
    """Return the possible lengths of chains' prefixes; each length has its own character."""
    # Two bits per level give the shortest path. The upper half of an IPv6 address is divided by
    # four bits per level, because there are only 62 characters.
    routed = ip_bits - 64 if ip_bits > 64 else 0
    ip = (*range(0, routed, 4), *range(routed, ip_bits, 2))
    return (*ip, ip_bits, *range(ip_bits + _PROTOCOL_BITS, ip_bits + _BEHIND_IP, 2))


def _hash(prefix: int) -> str:
    digest = hashlib.sha256(prefix.to_bytes(20, "big")).digest()
    number = int.from_bytes(digest[:4], "big")
    return "".join(_BASE_32[number >> 5 * i & 31] for i in range(_HASH_DIGITS))
