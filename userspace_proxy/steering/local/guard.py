"""The table that refuses what isn't a frontend, as text.

    addresses4  10.96.7.1                addresses of Services that are routed to this node
    frontends4  10.96.7.1 . 6 . 80       what is let in there (6 is TCP, 17 is UDP)

Of TCP only the SYN is asked, as without one there is no connection: what was let in before
goes on. UDP has no such packet: each is asked. A fragment of IPv6 without the ports passes: it
comes to nothing without the first one. ICMP is answered by the kernel: a ping to a Service's
address is harmless. All other protocols are refused: no Service has them.

Rule 1: nothing here knows the library or the kernel.
Rule 2: an element is text as ``nft`` prints it, so that both compare as text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from ...model import Frontend, IPFamily
from ..nftables import text
from ..nftables.rules import Listing
from ..nftables.text import FILTER_PRIORITY, frontend_key, printed_ip, write_section

ADDRESSES = {IPFamily.IPV4: "addresses4", IPFamily.IPV6: "addresses6"}
FRONTENDS = {IPFamily.IPV4: "frontends4", IPFamily.IPV6: "frontends6"}
SETS = (*ADDRESSES.values(), *FRONTENDS.values())
_WORD = {IPFamily.IPV4: "ip", IPFamily.IPV6: "ip6"}
_TYPE = {IPFamily.IPV4: "ipv4_addr", IPFamily.IPV6: "ipv6_addr"}
_SET = re.compile(r"\n\tset (\w+) \{(.*?)\n\t\}", re.DOTALL)
_ELEMENTS = re.compile(r"\n\t\telements = \{([^}]*)\}")

Elements = set[tuple[str, str]]
"""Each a set's name and the element."""


def frontend_element(frontend: Frontend) -> tuple[str, str]:
    """Return the set that lets a frontend in, and its element."""
    return FRONTENDS[frontend.family], frontend_key(frontend)


def address_element(network: str) -> tuple[str, str]:
    """Return the set that guards an address, given as a range of one, and its element."""
    ip = network.partition("/")[0]
    return ADDRESSES[IPFamily.of(ip)], printed_ip(ip)


def all_elements(networks: Iterable[str], served: Iterable[Frontend]) -> Elements:
    """Return the elements of all sets."""
    return {address_element(n) for n in networks} | {frontend_element(f) for f in served}


def write_guard(table: str, ranges: Iterable[str]) -> str:
    """Return the commands that make the table anew, without elements.

    Args:
        table: Its name.
        ranges: Guarded as a whole.
    """
    sections = [
        *(write_section("set", ADDRESSES[f], [f"type {_TYPE[f]}"]) for f in IPFamily),
        *(
            write_section("set", FRONTENDS[f], [f"type {_TYPE[f]} . inet_proto . inet_service"])
            for f in IPFamily
        ),
        write_section("chain", "guard", _guard()),
        write_section("chain", "input", _input(ranges)),
    ]
    return f"{text.write_removal(table)}\ntable inet {table} {{\n{''.join(sections)}}}"


def write_elements(table: str, *, go: Elements, come: Elements) -> list[str]:
    """Return the commands that remove some elements and add others."""
    return [
        command
        for verb, elements in (("delete", go), ("add", come))
        for name in SETS
        for command in text.write_elements(
            verb, table, name, sorted(key for place, key in elements if place == name)
        )
    ]


def read_guard(listing: str) -> Listing:
    """Return what ``list table`` has printed; an element's value is empty."""
    elements: dict[str, dict[str, str]] = {}
    for name, inside in _SET.findall(listing):
        found = _ELEMENTS.search(inside)
        keys = (key.strip() for key in found[1].split(",")) if found else ()
        elements[name] = dict.fromkeys((key for key in keys if key), "")
    return Listing(text.without_elements(listing), elements)


def elements_of(listing: Listing) -> Elements:
    """Return what is in the sets of a listing."""
    return {(name, key) for name, keys in listing.elements.items() for key in keys}


def _input(ranges: Iterable[str]) -> Iterator[str]:
    yield f"type filter hook input priority {FILTER_PRIORITY}"
    for family in IPFamily:
        yield f"{_WORD[family]} daddr @{ADDRESSES[family]} goto guard"
    for network in ranges:
        yield f"{'ip6' if ':' in network else 'ip'} daddr {network} goto guard"


def _guard() -> Iterator[str]:
    # Kernel 6.18 reads ports in them all the same, where there are none.
    yield "frag frag-off != 0 accept"
    # Not "tcp flags syn": that would pass over a SYN with FIN or RST too.
    yield from _refusals("tcp flags & (syn | ack) == syn", "reject with tcp reset")
    yield from _refusals("meta l4proto udp", "reject")
    yield "meta l4proto != { tcp, udp, icmp, icmpv6 } reject"


def _refusals(packets: str, verdict: str) -> Iterator[str]:
    for family in IPFamily:
        looked_up = f"{_WORD[family]} daddr . meta l4proto . th dport != @{FRONTENDS[family]}"
        yield f"{packets} {looked_up} {verdict}"
