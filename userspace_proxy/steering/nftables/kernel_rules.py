"""The contents of the kernel path's table, which maps frontends to endpoints.

    forwarded4  10.96.7.1 . tcp . 80
    choices4    10.96.7.1 . tcp . 80 : goto choose-1-of-2-ip
    endpoints4  10.96.7.1 . tcp . 80 . 0 : 10.244.1.2 . 8080     a rule draws the last number
    counted4    10.96.7.1 . tcp . 80  counts connections; stays while the frontend is steered
    ranged4, range_choices4, range_endpoints4, counted_ranges4     the same for ranges of ports
    pins4       10.1.0.2 . 7          affinity: clients and their endpoints; rules write it

Rule 1: this module doesn't access the kernel; it converts values.
Rule 2: a frontend is represented by elements only. Chains exist once per chooser (number of
endpoints, clients' networks), so the cost of a change doesn't grow with the number of Services.
With session affinity, each Service port has its own chains, one for each endpoint.
Rule 3: connections that these rules don't translate continue to the proxy port.
Rule 4: nft 1.0.6 (Debian 12) must be able to list the rules. It aborts if a key contains the value
of a map, or if a rule stores such a value.
"""

from __future__ import annotations

import functools
import itertools
import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from ...errors import SteeringError
from ...kernel.netlink.messages import ip_of
from ...kernel.nf_tables import TableWriter
from ...kernel.nf_tables import expressions as x
from ...kernel.nf_tables.expressions import joined
from ...kernel.nf_tables.writer import (
    OUTPUT,
    POSTROUTING,
    PREROUTING,
    VERDICTS,
    Interval,
    SetElement,
    goto_chain,
)
from ...model import Frontend, IPFamily, SocketAddress, pack_ip
from ...shares import remove_from
from ..base import KernelTarget
from .choosers import (
    NAMES,
    PINS_MAX,
    Chooser,
    ChooserChain,
    chooser_of,
    pack_number,
)
from .rules import ADDRESS, DIALLED, FRONTEND, IS_FAMILY, PARTS, frontend_key, read_frontend

# The first priority precedes the chains that steer to proxy ports; the second precedes other
# programs' masquerading.
NAT_PRIORITY, SOURCE_PRIORITY = -111, 90
# This priority follows all rules for single ports, which take precedence over ranges.
RANGE_PRIORITY = -109
LINKS, SAME_LINK = "links", "same_link"
_BY_CLIENT = {
    IPFamily.IPV4: (x.ORIGINAL_IP_DADDR, x.L4PROTO, x.ORIGINAL_DPORT),
    IPFamily.IPV6: (x.ORIGINAL_IP6_DADDR, x.L4PROTO, x.ORIGINAL_DPORT),
}
_TRANSLATED = x.match(x.CT_STATUS, 0, mask=x.STATUS_DNAT, op=x.NOT_EQUAL)
_NUMBER_BYTES = 4


SetKey = tuple[str, bytes]
"""A set's name and the key of an element."""
# The sets' elements are removed in this order and added in the reverse order, so that a look-up
# finds all of a frontend's elements or none.
SETS = (
    *(
        name
        for names in NAMES.values()
        for name in (names.choices, names.endpoints, names.forwarded, names.counted)
    ),
    *(
        name
        for names in NAMES.values()
        for name in (
            *(names.range_choices, names.range_endpoints),
            *(names.ranged, names.counted_ranges),
        )
    ),
    *(LINKS, SAME_LINK),
)


@dataclass(slots=True)
class Difference:
    """The elements and choosers that one change writes."""

    removed: set[SetElement] = field(default_factory=set)
    added: set[SetElement] = field(default_factory=set)
    new_choosers: dict[Chooser, ChooserChain] = field(default_factory=dict)
    gone_choosers: dict[Chooser, ChooserChain] = field(default_factory=dict)
    pins: dict[tuple[str, IPFamily], dict[SocketAddress, int]] = field(default_factory=dict)
    """The endpoints' numbers in new choosers, by affinity name and IP family."""
    targets: dict[Frontend, KernelTarget | None] = field(default_factory=dict)
    """New targets; None for a frontend that leaves the kernel path."""
    counted: set[Frontend] = field(default_factory=set)
    """Frontends whose connections are counted from this change on."""
    uncounted: set[Frontend] = field(default_factory=set)
    """Frontends whose connections are no longer counted after this change."""


class KernelRules:
    """The table's contents: all frontends on the kernel path."""

    def __init__(self) -> None:
        self.targets: dict[Frontend, KernelTarget] = {}
        self.counted: dict[SetKey, Frontend] = {}
        """The frontend of each element that counts; it stays when the frontend leaves the path."""
        self.choosers: dict[Chooser, ChooserChain] = {}
        self._uses: Counter[Chooser] = Counter()
        # Don't reuse numbers early: affinity entries may still contain removed endpoints' numbers.
        self._numbers = Numbers(1)
        self._by_affinity: dict[tuple[str, IPFamily], dict[Chooser, ChooserChain]] = {}
        """The choosers by affinity name and IP family; no entry is empty."""

    def difference(
        self, affected: Mapping[Frontend, KernelTarget | None], gone: Iterable[Frontend] = ()
    ) -> Difference:
        """Return the change that sets frontends' new targets; assign numbers to new endpoints.

        Args:
            affected: The new targets; None for a frontend that isn't on the kernel path.
            gone: Frontends that are no longer steered.
        """
        change = Difference()
        uses: Counter[Chooser] = Counter()
        for frontend, target in affected.items():
            old = self.targets.get(frontend)
            new = target if target and target.is_on and target.choices else None
            if old == new:
                continue
            change.targets[frontend] = new
            before: set[SetElement] = set()
            now: set[SetElement] = set()
            if old is not None:
                chooser = chooser_of(frontend, old)
                uses[chooser] -= 1
                before = set(_elements(frontend, old, self.choosers[chooser]))
            if new is not None:
                chooser = chooser_of(frontend, new)
                uses[chooser] += 1
                now = set(_elements(frontend, new, self._chain(chooser, change)))
                if _count_key(frontend) not in self.counted:
                    change.counted.add(frontend)
            change.removed |= before - now
            change.added |= now - before
        change.added |= {(*_count_key(frontend), b"") for frontend in change.counted}
        for key in map(_count_key, gone):
            if key in self.counted:
                change.uncounted.add(self.counted[key])
                change.removed.add((*key, b""))
        for chooser, by in uses.items():
            if self._uses[chooser] + by == 0 and chooser in self.choosers:
                change.gone_choosers[chooser] = self.choosers[chooser]
        return change

    def accept(self, change: Difference) -> None:
        for frontend, target in change.targets.items():
            old = self.targets.pop(frontend, None)
            if old is not None:
                self._uses[chooser_of(frontend, old)] -= 1
            if target is not None:
                self.targets[frontend] = target
                self._uses[chooser_of(frontend, target)] += 1
        self.counted |= {_count_key(frontend): frontend for frontend in change.counted}
        for frontend in change.uncounted:
            del self.counted[_count_key(frontend)]
        self.choosers |= change.new_choosers
        for chooser in change.gone_choosers:
            del self.choosers[chooser], self._uses[chooser]
        self._index_affinities(change)

    def elements(self) -> Iterator[SetElement]:
        """Yield the elements of all sets, without links and affinity entries."""
        yield from ((*key, b"") for key in self.counted)
        for frontend, target in self.targets.items():
            yield from _elements(frontend, target, self.choosers[chooser_of(frontend, target)])

    def _chain(self, chooser: Chooser, change: Difference) -> ChooserChain:
        known = self.choosers.get(chooser) or change.new_choosers.get(chooser)
        if known is None:
            there = self.choosers, change.new_choosers
            had: Mapping[SocketAddress, int] = {}
            if chooser.affinity is not None:
                place = chooser.affinity.name, chooser.family
                had = {**self._pins(*place), **change.pins.get(place, {})}
            endpoints = dict.fromkeys(chooser.endpoints)
            if chooser.affinity is not None and chooser.affinity.is_of_pods:
                had = _of_pods(had, endpoints)
            # The chooser's number, and a number for each new endpoint.
            count = 1 + sum(endpoint not in had for endpoint in endpoints)
            number = self._numbers.take(count, lambda: _numbers_in(*there))
            fresh = itertools.count(number + 1)
            pins = {e: had.get(e) or next(fresh) for e in endpoints}
            known = change.new_choosers[chooser] = ChooserChain(number, pins)
            if chooser.affinity is not None:
                change.pins.setdefault(place, {}).update(pins)
        return known

    def _pins(self, name: str, family: IPFamily) -> Mapping[SocketAddress, int]:
        """Return the current numbers of the endpoints that share an affinity's entries."""
        chains = self._by_affinity.get((name, family), {}).values()
        return {endpoint: number for chain in chains for endpoint, number in chain.pins.items()}

    def _index_affinities(self, change: Difference) -> None:
        for chooser, chain in change.new_choosers.items():
            if chooser.affinity is not None:
                place = chooser.affinity.name, chooser.family
                self._by_affinity.setdefault(place, {})[chooser] = chain
        for chooser in change.gone_choosers:
            if chooser.affinity is not None:
                place = chooser.affinity.name, chooser.family
                remove_from(self._by_affinity, place, chooser)


def _of_pods(
    had: Mapping[SocketAddress, int], endpoints: Iterable[SocketAddress]
) -> dict[SocketAddress, int]:
    """Return each endpoint's old number, or its address's old number; omit other endpoints."""
    found = {endpoint: had[endpoint] for endpoint in endpoints if endpoint in had}
    known = {endpoint.ip for endpoint in found}
    numbers = {e.ip: number for e, number in had.items() if e.ip not in known}
    for endpoint in endpoints:
        if endpoint not in found and (number := numbers.pop(endpoint.ip, None)) is not None:
            found[endpoint] = number
    return found


def _numbers_in(*choosers: Mapping[Chooser, ChooserChain]) -> Iterator[range]:
    for chain in itertools.chain.from_iterable(some.values() for some in choosers):
        for number in (chain.number, *chain.pins.values()):
            yield range(number, number + 1)


def _elements(
    frontend: Frontend, target: KernelTarget, chain: ChooserChain
) -> Iterator[SetElement]:
    names, key = NAMES[frontend.family], frontend_key(frontend)
    to = goto_chain(chain.name(chooser_of(frontend, target)))
    endpoints = itertools.chain.from_iterable(choice.endpoints for choice in target.choices)
    if isinstance(key, Interval):
        yield names.ranged, key, b""
        yield names.range_choices, key, to
        for index, endpoint in enumerate(dict.fromkeys(endpoints)):
            number = pack_number(index)
            yield names.range_endpoints, key.first + number, pack_endpoint(endpoint)
        return
    yield names.forwarded, key, b""
    yield names.choices, key, to
    for index, endpoint in enumerate(endpoints):
        yield names.endpoints, key + pack_number(index), pack_endpoint(endpoint)


def _count_key(frontend: Frontend) -> SetKey:
    names = NAMES[frontend.family]
    return names.counted_ranges if frontend.last else names.counted, frontend_key(frontend)


@functools.lru_cache(maxsize=1024)
def pack_endpoint(endpoint: SocketAddress) -> bytes:
    """Return an endpoint as a value: ``10.244.1.2 . 8080``."""
    return pack_ip(endpoint.ip) + endpoint.port.to_bytes(2, "big") + bytes(2)


# The result is cached, because a frontend may have thousands of slots for a few endpoints.
@functools.lru_cache(maxsize=1024)
def _unpack_endpoint(value: bytes) -> SocketAddress:
    return SocketAddress(ip_of(value[:-4]), int.from_bytes(value[-4:-2], "big"))


def read_endpoints(
    elements: Mapping[str, Mapping[bytes, bytes]],
) -> dict[Frontend, tuple[SocketAddress, ...]]:
    """Return the endpoints of frontends in a table's elements, in the order of their numbers."""
    found: dict[Frontend, dict[int, SocketAddress]] = {}
    for family, names in NAMES.items():
        led = elements.get(names.choices, {})
        for key, value in elements.get(names.endpoints, {}).items():
            frontend = read_frontend(key[:-_NUMBER_BYTES], family)
            if frontend is not None and key[:-_NUMBER_BYTES] in led:
                index = int.from_bytes(key[-_NUMBER_BYTES:], sys.byteorder)
                found.setdefault(frontend, {})[index] = _unpack_endpoint(value)
        ranges = _by_first(elements.get(names.range_choices, {}), family)
        for key, value in elements.get(names.range_endpoints, {}).items():
            if (frontend := ranges.get(key[:-_NUMBER_BYTES])) is not None:
                index = int.from_bytes(key[-_NUMBER_BYTES:], sys.byteorder)
                found.setdefault(frontend, {})[index] = _unpack_endpoint(value)
    return {f: tuple(one for _, one in sorted(some.items())) for f, some in found.items()}


def _by_first(keys: Iterable[bytes], family: IPFamily) -> dict[bytes, Frontend]:
    """Return the frontend of each interval element, keyed by the interval's first key."""
    found = ((key, read_frontend(key, family)) for key in keys if isinstance(key, Interval))
    return {key.first: frontend for key, frontend in found if frontend is not None}


def read_endpoints_of(
    elements: Iterable[SetElement],
) -> dict[Frontend, tuple[SocketAddress, ...]]:
    """Return the endpoints of single-port frontends in these elements, which may be incomplete."""
    families = {names.endpoints: family for family, names in NAMES.items()}
    found: dict[Frontend, dict[SocketAddress, None]] = {}
    for name, key, value in elements:
        if name in families:
            frontend = read_frontend(key[:-_NUMBER_BYTES], families[name])
            if frontend is not None:
                found.setdefault(frontend, {})[_unpack_endpoint(value)] = None
    return {frontend: tuple(some) for frontend, some in found.items()}


def read_frontends(elements: Iterable[SetElement]) -> set[Frontend]:
    """Return the frontends that these elements translate to endpoints."""
    keys: dict[IPFamily, set[bytes]] = {}
    for family, names in NAMES.items():
        of_frontends = (names.forwarded, names.choices, names.ranged, names.range_choices)
        keys[family] = {key for name, key, _ in elements if name in of_frontends}
        keys[family] |= {
            key[:-_NUMBER_BYTES] for name, key, _ in elements if name == names.endpoints
        }
    found = (read_frontend(key, family) for family, some in keys.items() for key in some)
    return {frontend for frontend in found if frontend is not None}


def write_table(name: str, *, has_counters: bool) -> list[bytes]:
    """Return the messages that create the table, without set elements and chooser chains."""
    table = TableWriter(name)
    table.create()
    for family, names in NAMES.items():
        endpoint = joined(ADDRESS[family], x.INET_SERVICE)
        dialled = (ADDRESS[family], x.INET_PROTO, x.INET_SERVICE)
        table.add_set(names.forwarded, FRONTEND[family])
        table.add_verdict_map(names.choices, FRONTEND[family])
        table.add_map(names.endpoints, joined(*dialled, x.NUMBER), endpoint)
        table.add_dynamic_set(names.pins, joined(ADDRESS[family], x.NUMBER), PINS_MAX)
        table.add_set(names.counted, FRONTEND[family], counts=has_counters)
        table.add_interval_set(names.ranged, PARTS[family])
        table.add_interval_set(names.range_choices, PARTS[family], VERDICTS)
        table.add_map(names.range_endpoints, joined(*dialled, x.NUMBER), endpoint)
        table.add_interval_set(names.counted_ranges, PARTS[family], counts=has_counters)
    table.add_set(LINKS, x.LINK_INDEX)
    table.add_set(SAME_LINK, joined(x.LINK_INDEX, x.LINK_INDEX))
    table.add_base_chain("prerouting", "nat", PREROUTING, NAT_PRIORITY)
    table.add_base_chain("output", "nat", OUTPUT, NAT_PRIORITY)
    table.add_base_chain("prerouting_ranges", "nat", PREROUTING, RANGE_PRIORITY)
    table.add_base_chain("output_ranges", "nat", OUTPUT, RANGE_PRIORITY)
    table.add_base_chain("postrouting", "nat", POSTROUTING, SOURCE_PRIORITY)
    table.add_chain("source")
    for family, names in NAMES.items():
        choose = x.load_slots(DIALLED[family], 0) + x.find_verdict(names.choices, 0)
        for chain in ("prerouting", "output"):
            table.add_rule(chain, IS_FAMILY[family] + choose)
        choose = x.load_slots(DIALLED[family], 0) + x.find_verdict(names.range_choices, 0)
        for chain in ("prerouting_ranges", "output_ranges"):
            table.add_rule(chain, IS_FAMILY[family] + choose)
        for forwarded in (names.forwarded, names.ranged):
            ours = x.load_slots(_BY_CLIENT[family], 0) + x.has(forwarded, 0)
            ours += x.verdict(x.GOTO, "source")
            table.add_rule("postrouting", _TRANSLATED + IS_FAMILY[family] + ours)
    _add_masquerade(table)
    return table.messages


def _add_masquerade(table: TableWriter) -> None:
    """Add the rules that masquerade the source only if replies would bypass this node.

    Replies return here if the client is this node, or if client or endpoint is a container of this
    node, unless both are on the same link: there, a bridge delivers replies past this node, and a
    container doesn't accept packets from its own address. A packet that br_netfilter sees between
    ports of the same bridge has no incoming link.
    """
    both = x.in_set((x.IN_LINK, x.OUT_LINK), SAME_LINK)
    table.add_rule("source", both + x.masquerade())
    table.add_rule("source", x.match(x.SADDR_TYPE, x.LOCAL) + x.verdict(x.ACCEPT))
    table.add_rule("source", x.match(x.IN_LINK, 0) + x.masquerade())
    for link in (x.IN_LINK, x.OUT_LINK):
        table.add_rule("source", x.in_set((link,), LINKS) + x.verdict(x.ACCEPT))
    table.add_rule("source", x.masquerade())


def link_elements(links: Collection[int]) -> set[SetElement]:
    """Return the elements for the links behind which there are only containers of this node."""
    packed = list(map(pack_number, links))
    return {(LINKS, one, b"") for one in packed} | {(SAME_LINK, one + one, b"") for one in packed}


NUMBERS_END = 1 << 32


class Numbers:
    """An allocator of 32-bit numbers in a cycle, which skips numbers in use.

        in use  ├──────┤         ├───┤  ├──────────┤
        given            ▶▶▶▶▶▶▶▶     ▶             ▶▶▶▶▶▶▶▶ the end, then from the first again

    A freed number is reused last, because packets and affinity entries may still contain it.
    """

    def __init__(self, first: int) -> None:
        self._first = self._next = first
        self._gap_end = NUMBERS_END

    def take(self, count: int, in_use: Callable[[], Iterable[range]]) -> int:
        """Assign consecutive numbers; return the first.

        Args:
            count: How many numbers to assign.
            in_use: Returns all ranges in use, in any order; called when a gap is used up.

        Raises:
            SteeringError: Not enough consecutive numbers are free.
        """
        if self._next + count > self._gap_end:
            self._next, self._gap_end = self._find_gap(count, in_use())
        number = self._next
        self._next += count
        return number

    def _find_gap(self, count: int, in_use: Iterable[range]) -> tuple[int, int]:
        used = sorted((one.start, one.stop) for one in in_use)
        for begin in (self._next, self._first):
            for start, stop in (*used, (NUMBERS_END, NUMBERS_END)):
                if start - begin >= count:
                    return begin, start
                begin = max(begin, stop)
        raise SteeringError("cannot number endpoints: all numbers are in use")
