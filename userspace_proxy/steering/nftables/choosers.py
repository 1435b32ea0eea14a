"""The chains that choose an endpoint, as netlink messages.

    choose-1-of-3-ip         counts, draws a number, translates to its endpoint; shared
    hash-4-of-128-ip         the same, but the client's address decides the number
    choose-9-of-2-ip         session affinity: a chain for each affinity name
        client . 7 @pins4  goto …-to-7          the client has this endpoint
        client . 8 @pins4  goto …-to-8
        numgen random mod 2 vmap { 0 : goto …-to-7, 1 : goto …-to-8 }
    choose-9-of-2-ip-to-7    counts, remembers the client, and translates

A range of ports has such chains for each endpoint, with or without affinity: they keep the port, or
shift it.

Rule 1: this module doesn't access the kernel.
Rule 2: an endpoint's number in an affinity entry is reused only once all numbers have been
assigned, long after the entry has expired. An entry for a removed endpoint has no effect.
Rule 3: the hash must not change: all nodes choose the same endpoint for a client, before and after
an upgrade.
"""

from __future__ import annotations

import itertools
import socket
import sys
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from ...kernel.conntrack import PROTOCOL_NUMBERS
from ...kernel.nf_tables import TableWriter
from ...kernel.nf_tables import expressions as x
from ...kernel.nf_tables.writer import goto_chain
from ...model import Frontend, IPFamily, SocketAddress, pack_ip
from ..base import Affinity, KernelTarget
from .rules import DIALLED, IS_FAMILY

# The maximum number of affinity entries, each of which takes about 100 bytes of kernel memory.
# Once it is reached, further clients have no affinity.
PINS_MAX = 1 << 18
# The seed of the hash. It differs from other programs' seeds, because behind a load balancer with
# the same hash only a few slots would be used.
_SEED = 0x7570_7870
HAS_PORTS = x.one_of(x.L4PROTO, x.INET_PROTO, *PROTOCOL_NUMBERS.values())
_NUMBER_BYTES = 4
# The first register slots of a key (the dialled or the client's address, then a number), and of the
# endpoint.
_KEY, _ENDPOINT = 0, 8
_SOURCE = {IPFamily.IPV4: x.IP_SADDR, IPFamily.IPV6: x.IP6_SADDR}
_AF = {IPFamily.IPV4: socket.AF_INET, IPFamily.IPV6: socket.AF_INET6}


class SetNames(NamedTuple):
    """The names of one family's sets."""

    forwarded: str
    choices: str
    endpoints: str
    pins: str
    counted: str
    ranged: str
    """Ranges that are translated to endpoints, as single ports are in ``forwarded``."""
    range_choices: str
    range_endpoints: str
    """The endpoints of ranges, by first port and number; no rule looks them up."""
    counted_ranges: str


NAMES = {
    family: SetNames(*(f"{name}{digit}" for name in SetNames._fields))
    for family, digit in {IPFamily.IPV4: "4", IPFamily.IPV6: "6"}.items()
}


class Chooser(NamedTuple):
    """A method of choosing an endpoint; frontends with equal choosers share chains."""

    family: IPFamily
    counts: tuple[tuple[tuple[str, ...] | None, int], ...]
    """For each choice, the clients' networks (None: all clients) and the number of endpoints."""
    affinity: Affinity | None = None
    endpoints: tuple[SocketAddress, ...] = ()
    """The endpoints of all choices, in order; empty for a single port without affinity."""
    by_client: bool = False
    """Whether the client's address, not chance, decides, as in :class:`.KernelTarget`."""
    span: tuple[int, int] | None = None
    """A range's first and last port; the first maps to the endpoints' port. None: a single port."""


class ChooserChain(NamedTuple):
    """A chooser's numbers: in the names of its chains, and in affinity entries."""

    number: int
    pins: Mapping[SocketAddress, int] = {}
    """The numbers of the endpoints in :attr:`.Chooser.endpoints`."""

    def name(self, chooser: Chooser) -> str:
        """Return the chain's name: ``choose-1-of-3-ip``, ``hash-4-of-128-ip``."""
        counts = "-".join(str(count) for _, count in chooser.counts)
        family = "ip" if chooser.family is IPFamily.IPV4 else "ip6"
        return f"{'hash' if chooser.by_client else 'choose'}-{self.number}-of-{counts}-{family}"

    def name_to(self, chooser: Chooser, endpoint: SocketAddress) -> str:
        return f"{self.name(chooser)}-to-{self.pins[endpoint]}"


def chooser_of(frontend: Frontend, target: KernelTarget) -> Chooser:
    """Return the chooser of a frontend's target."""
    counts = tuple((choice.networks, len(choice.endpoints)) for choice in target.choices)
    span = (frontend.port, frontend.last) if frontend.last else None
    if target.affinity is None and span is None:
        return Chooser(frontend.family, counts, by_client=target.by_client)
    endpoints = itertools.chain.from_iterable(choice.endpoints for choice in target.choices)
    affinity = target.affinity
    return Chooser(frontend.family, counts, affinity, tuple(endpoints), target.by_client, span)


def pack_number(value: int) -> bytes:
    """Return a number as a component of a key."""
    return value.to_bytes(_NUMBER_BYTES, sys.byteorder)


def write_chooser(table: str, chooser: Chooser, chain: ChooserChain) -> list[bytes]:
    """Return the messages that add a chooser's chains, without elements."""
    writer = TableWriter(table)
    is_family = IS_FAMILY[chooser.family]
    for name in chains_of(chooser, chain):
        writer.add_chain(name)
    first = 0
    for name, (networks, count) in zip(_branches(chooser, chain), chooser.counts, strict=True):
        for network in networks or ():
            inside = is_family + x.from_network(network)
            writer.add_rule(chain.name(chooser), inside + x.verdict(x.GOTO, name))
        if chooser.endpoints:
            _add_pinned(writer, name, chooser, chain, chooser.endpoints[first : first + count])
        else:
            writer.add_rule(name, HAS_PORTS, _choose(chooser, count, first))
        first += count
    for endpoint, number in chain.pins.items():
        _add_endpoint(writer, chain.name_to(chooser, endpoint), chooser, endpoint, number)
    return writer.messages


def _add_endpoint(
    writer: TableWriter, name: str, chooser: Chooser, endpoint: SocketAddress, number: int
) -> None:
    """Add the rules that count and translate a connection, and remember a client with affinity."""
    family, span = chooser.family, chooser.span
    is_family = IS_FAMILY[family]
    if chooser.affinity is not None:
        pin = x.remember(NAMES[family].pins, _KEY, chooser.affinity.timeout_s)
        writer.add_rule(name, is_family + _client(family, number) + pin)
    if span is None:
        writer.add_rule(name, is_family + _count(family) + _translate(endpoint))
        return
    counted = is_family + _count(family, is_range=True)
    for condition, translation in _translations(endpoint, span):
        writer.add_rule(name, HAS_PORTS, condition + counted + translation)


def write_without_chooser(table: str, chooser: Chooser, chain: ChooserChain) -> list[bytes]:
    """Return the messages that delete an unused chooser's chains."""
    writer = TableWriter(table)
    # First flush the chain whose rules jump to the other chains.
    for name in chains_of(chooser, chain):
        writer.flush_chain(name)
    for name in chains_of(chooser, chain):
        writer.delete_chain(name)
    return writer.messages


def _branches(chooser: Chooser, chain: ChooserChain) -> list[str]:
    name = chain.name(chooser)
    return [
        name if networks is None else f"{name}-{index}"
        for index, (networks, _) in enumerate(chooser.counts)
    ]


def chains_of(chooser: Chooser, chain: ChooserChain) -> list[str]:
    """Return the names of all chains of a chooser, in the order of their creation."""
    to_endpoints = [chain.name_to(chooser, endpoint) for endpoint in chain.pins]
    names = (chain.name(chooser), *_branches(chooser, chain), *to_endpoints)
    return list(dict.fromkeys(names))


def _width(family: IPFamily) -> int:
    """Return the number of register slots that an address takes."""
    return _SOURCE[family].width // _NUMBER_BYTES


def _choose(chooser: Chooser, count: int, first: int) -> bytes:
    """Return the rule that translates to one of ``count`` endpoints from index ``first`` on."""
    family = chooser.family
    width = _width(family)
    drawn = _draw(chooser, count, width + 2, first)
    found = x.find(NAMES[family].endpoints, _KEY, _ENDPOINT)
    to = x.dnat_to(_ENDPOINT, _ENDPOINT + width, _AF[family])
    return IS_FAMILY[family] + _count(family) + drawn + found + to


def _draw(chooser: Chooser, count: int, slot: int, first: int) -> bytes:
    """Return expressions that draw an index, by client or at random, from ``first`` on."""
    if not chooser.by_client:
        return x.pick(count, slot, first)
    source = _SOURCE[chooser.family]
    load = x.load_slots((source,), _ENDPOINT)
    return load + x.pick_by(_ENDPOINT, source.width, count, slot, seed=_SEED, first=first)


def _count(family: IPFamily, *, is_range: bool = False) -> bytes:
    """Return expressions that load the dialled frontend, and count a connection to it."""
    counted = NAMES[family].counted_ranges if is_range else NAMES[family].counted
    return x.load_slots(DIALLED[family], _KEY) + x.has(counted, _KEY)


def _add_pinned(
    writer: TableWriter,
    name: str,
    chooser: Chooser,
    chain: ChooserChain,
    endpoints: tuple[SocketAddress, ...],
) -> None:
    """Add the rules that translate to the endpoint that a client keeps, or else to any endpoint.

    Each rule has its own map: with one map for all Services, the kernel would visit all endpoints
    for each of these rules in each transaction.
    """
    family = chooser.family
    for endpoint in dict.fromkeys(endpoints) if chooser.affinity is not None else ():
        pinned = _client(family, chain.pins[endpoint]) + x.has(NAMES[family].pins, _KEY)
        to = x.verdict(x.GOTO, chain.name_to(chooser, endpoint))
        writer.add_rule(name, IS_FAMILY[family] + pinned + to)
    drawn = _draw(chooser, len(endpoints), _KEY, 0)
    is_family = IS_FAMILY[family] if chooser.by_client else b""
    to_any = [goto_chain(chain.name_to(chooser, endpoint)) for endpoint in endpoints]
    writer.add_rule(name, is_family + drawn, x.go_by(_KEY, to_any))


def _client(family: IPFamily, number: int) -> bytes:
    """Return expressions that load an affinity entry's key: the client, an endpoint's number."""
    number_slot = _KEY + _width(family)
    return x.load_slots((_SOURCE[family],), _KEY) + x.put_slot(pack_number(number), number_slot)


def _translate(endpoint: SocketAddress) -> bytes:
    to = x.put_slot(pack_ip(endpoint.ip), _ENDPOINT)
    at = _ENDPOINT + _width(endpoint.family)
    port = x.put_slot(endpoint.port.to_bytes(2, "big"), at)
    return to + port + x.dnat_to(_ENDPOINT, at, _AF[endpoint.family])


class Shift(NamedTuple):
    """A subrange of ports, and how the kernel shifts its ports by remainders (``dnat_shifted``)."""

    first: int
    last: int
    to_first: int
    to_last: int


def shifts(first: int, last: int, offset: int) -> Iterator[Shift]:
    """Split a port range into subranges that ``to_first + port % divisor`` shifts by ``offset``.

    The divisor is ``to_last - to_first + 1``. For a shift upwards, it is larger than all ports. For
    a shift downwards, it is at most the first port of a subrange and more than half of its last
    port, so that the quotient of each port is 1.
    """
    if offset >= 0:
        yield Shift(first, last, offset, offset + last)
        return
    while first <= last:
        end = min(last, 2 * first - 1)
        divisor = max(end // 2 + 1, -offset)
        yield Shift(first, end, offset + divisor, offset + 2 * divisor - 1)
        first = end + 1


def _translations(endpoint: SocketAddress, span: tuple[int, int]) -> Iterator[tuple[bytes, bytes]]:
    """Yield the conditions and the translations of a range to an endpoint.

    The range's first port maps to the endpoint's port, the second port to the next, and so on.
    """
    to = x.put_slot(pack_ip(endpoint.ip), _ENDPOINT)
    at, family = _ENDPOINT + _width(endpoint.family), _AF[endpoint.family]
    offset = endpoint.port - span[0]
    if not offset:
        yield b"", to + x.dnat_to_ip(_ENDPOINT, family)
        return
    for shift in shifts(*span, offset):
        ports = (
            x.put_slot(port.to_bytes(2, "big"), at + index)
            for index, port in enumerate((shift.to_first, shift.to_last))
        )
        within = x.within(x.DPORT, shift.first, shift.last)
        yield within, to + b"".join(ports) + x.dnat_shifted(_ENDPOINT, at, at + 1, family)
