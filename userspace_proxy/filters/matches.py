"""The conditions of a rule as values: a field is, or isn't, one of some values.

    ip saddr 10.0.0.0/8      Match(SOURCE, (10.0.0.0/8,))
    tcp dport { 22, 80-90 }  Match(PROTOCOL, ("tcp",)), Match(DESTINATION_PORT, (22, 80-90))
    ip daddr @blocked        SetLookup((DESTINATION,), "blocked"), which ``reading`` replaces
    numgen random mod 2 0    Unknown()

Rule 1: a packet matches a rule if it meets all of its conditions.
Rule 2: text in nft's syntax is only for display.
"""

from __future__ import annotations

import enum
import functools
import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeGuard

from ..model.addresses import Network

LOOPBACK = "lo"


class MatchField(enum.StrEnum):
    """The field that a rule compares, named as in nft; for IPv6 the name differs by a digit."""

    SOURCE = "ip saddr"
    DESTINATION = "ip daddr"
    DIALLED_ADDRESS = "ct original ip daddr"
    """The destination address before any translation."""
    DIALLED_PORT = "ct original proto-dst"
    SOURCE_PORT = "th sport"
    DESTINATION_PORT = "th dport"
    PROTOCOL = "meta l4proto"
    """``tcp``, ``udp``, or a number as text."""
    FAMILY = "meta nfproto"
    """``ipv4``, ``ipv6``."""
    STATE = "ct state"
    """Names of conntrack states; iptables treats ``dnat`` as a state."""
    TRANSLATED = "ct status"
    """The only value is ``dnat``."""
    WAY_IN = "iif"
    """An interface's index, or its name, in which a final asterisk matches any characters."""
    WAY_OUT = "oif"
    """An interface, in the same form as in ``WAY_IN``."""
    TO_THIS_NODE = "fib daddr type"
    """The only value is ``local``."""
    TRANSPARENT_SOCKET = "socket transparent"
    """A condition without a value."""
    TCP_FLAGS = "tcp flags"
    DRAWN = "numgen/hash"
    """A random number or a hash, which distributes packets; a condition without a value."""
    LIMIT = "limit"
    """A limit of a rate or of connections; a condition without a value."""
    OTHER = ""


_OF_IPV6 = {
    MatchField.SOURCE: "ip6 saddr",
    MatchField.DESTINATION: "ip6 daddr",
    MatchField.DIALLED_ADDRESS: "ct original ip6 daddr",
}
# The word that follows the protocol in nft's syntax.
_PORT_OF = {MatchField.SOURCE_PORT: "sport", MatchField.DESTINATION_PORT: "dport"}
ADDRESSES = (MatchField.SOURCE, MatchField.DESTINATION, MatchField.DIALLED_ADDRESS)
_VALUES_SHOWN = 8
WAYS = (MatchField.WAY_IN, MatchField.WAY_OUT)
PORTS = (MatchField.SOURCE_PORT, MatchField.DESTINATION_PORT)


class Ports(NamedTuple):
    """A range of ports, including both ends."""

    first: int
    last: int

    def __str__(self) -> str:
        return str(self.first) if self.first == self.last else f"{self.first}-{self.last}"


class Bits(NamedTuple):
    """Flags of the TCP header: the flags in the mask must equal the value."""

    mask: int
    value: int

    def __str__(self) -> str:
        return f"{self.value:#x} / {self.mask:#x}"


Value = Network | Ports | Bits | str | int


@dataclass(frozen=True)
class Match:
    """A known condition: a field is one of some values, or none of them."""

    field: MatchField
    values: tuple[Value, ...] = ()
    is_inverted: bool = False

    def has(self, number: int) -> bool:
        """Return whether a value is, or contains, an address or port.

        Args:
            number: A port, or an address that :func:`number_of` has converted.
        """
        singles, spans = self._places
        if number in singles:
            return True
        for first, last in spans:  # noqa: SIM110 - a generator takes twice as long
            if first <= number <= last:
                return True
        return False

    @functools.cached_property
    def ends(self) -> Sequence[tuple[int, int]]:
        """The first and last port of each port range, as numbers.

        The first and last address of each network follow, also as numbers.
        """
        spans = [(one.first, one.last) for one in self.values if isinstance(one, Ports)]
        return [*spans, *map(ends_of, self.networks)]

    @property
    def networks(self) -> Sequence[Network]:
        return [one for one in self.values if isinstance(one, Network)]

    @property
    def bits(self) -> Sequence[Bits]:
        return [one for one in self.values if isinstance(one, Bits)]

    @functools.cached_property
    def versions(self) -> Mapping[int, bool]:
        """The IP versions of the networks; True if a network contains all addresses."""
        found: dict[int, bool] = {}
        for one in self.networks:
            found[one.version] = found.get(one.version, False) or not one.prefixlen
        return found

    @functools.cached_property
    def _places(self) -> tuple[frozenset[int], Sequence[tuple[int, int]]]:
        # Cost: each frontend is compared with up to two hundred values.
        singles = frozenset(first for first, last in self.ends if first == last)
        return singles, [(first, last) for first, last in self.ends if first != last]

    def __str__(self) -> str:
        field = _OF_IPV6.get(self.field, self.field) if 6 in self.versions else self.field
        if self.field in WAYS and isinstance(self.values[0], str):
            return self.in_words(field if self.values[0] == LOOPBACK else f"{field}name")
        return self.in_words(field)

    def in_words(self, field: str) -> str:
        """Return the condition in nft's syntax, with another word for its field.

        Of many values, only the first are shown.
        """
        excluded = "! " if self.field is MatchField.TRANSLATED else "!= "
        more = ["…"] if len(self.values) > _VALUES_SHOWN else []
        values = ",".join([*map(str, self.values[:_VALUES_SHOWN]), *more])
        return f"{field} {excluded if self.is_inverted else ''}{values}".strip()


@dataclass(frozen=True, slots=True)
class Unknown:
    """A condition that isn't understood, so no packet certainly meets it."""

    def __str__(self) -> str:
        return "…"


class LoadedField(NamedTuple):
    """A field that a rule has loaded, in the kernel's form."""

    field: MatchField = MatchField.OTHER
    width: int = 0
    """The width in bytes if the field is supported in sets and maps; otherwise 0."""
    is_name: bool = False
    """Whether the field is an interface's name, not its index."""


DRAWN = LoadedField(MatchField.DRAWN, 4)


class SetLookup(NamedTuple):
    """The condition that concatenated fields are in a set or map."""

    fields: tuple[LoadedField, ...]
    name: str
    is_inverted: bool = False


Condition = Match | Unknown | SetLookup
Conditions = tuple[Condition, ...]


def states(names: Sequence[str]) -> Match:
    """Return a condition on one or more conntrack states; "dnat" is allowed as a state."""
    is_alone = list(names) == ["dnat"]
    return Match(MatchField.TRANSLATED if is_alone else MatchField.STATE, tuple(names))


def in_words(conditions: Sequence[Condition]) -> str:
    """Return conditions in nft's syntax: ``tcp dport 22,80-90 ct state new``."""
    words: list[str] = []
    before: Condition | None = None
    for one in conditions:
        port = _PORT_OF.get(one.field, "") if isinstance(one, Match) else ""
        if isinstance(one, Match) and port and _is_one_protocol(before):
            # A protocol and its port form one condition.
            words[-1] = f"{before.values[0]} {one.in_words(port)}"
        else:
            words.append(str(one))
        before = one
    return " ".join(words)


def _is_one_protocol(one: Condition | None) -> TypeGuard[Match]:
    return (
        isinstance(one, Match)
        and one.field is MatchField.PROTOCOL
        and len(one.values) == 1
        and not one.is_inverted
    )


def number_of(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> int:
    """Return an address as a number; the numbers of IPv4 and IPv6 addresses differ."""
    return int(address) | (address.version == 6) << 128


@functools.lru_cache(maxsize=1000)
def ends_of(network: Network) -> tuple[int, int]:
    """Return the first and last address of a network, as :func:`number_of` converts them."""
    return number_of(network.network_address), number_of(network.broadcast_address)
