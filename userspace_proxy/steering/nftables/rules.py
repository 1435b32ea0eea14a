"""Our table as text: its rules, its elements, and what turns some elements into others.

    frontends4  10.96.7.1 . 6 . 80 : 36001      (6 is TCP, 17 is UDP)
    frontends6  fd00:96::1 . 6 . 80 : 36001
    guarded     6 . 36001                       proxy ports in use

Rule 1: nothing here knows the library or the kernel.
Rule 2: an element is a key and a value as ``nft`` prints them, so that both compare as text.
"""

from __future__ import annotations

import ipaddress
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from ...model import Frontend, IPFamily
from .text import (
    FILTER_PRIORITY,
    NUMBERS,
    frontend_key,
    without_elements,
    write_elements,
    write_removal,
    write_section,
)

MAPS = {IPFamily.IPV4: "frontends4", IPFamily.IPV6: "frontends6"}
GUARDED = "guarded"
SETS = (*MAPS.values(), GUARDED)
NAT_CHAINS = ("prerouting", "output")
# -100 is where all others' nat rules stand (NF_IP_PRI_NAT_DST). The kernel asks in the order of
# priorities and takes the first translation: ours goes before what kube-proxy left behind.
NAT_PRIORITY = -110

_PROTOCOLS = {str(int(number)): protocol for protocol, number in NUMBERS.items()}
_FRONTEND = re.compile(r"([0-9a-f.:]+) \. (6|17) \. (\d+) : (\d+)")

Elements = dict[str, dict[str, str]]
"""Of each set key and value; the value is empty where a set has none."""


class Shape(NamedTuple):
    """What the rules depend on."""

    table: str
    refuse_port: int = 0
    """Where refused frontends are steered to; 0 where there is none."""
    to_ip: str = ""
    """The IPv4 address that ``prerouting`` translates to; empty for the interface's."""


@dataclass(slots=True)
class Changes:
    """Elements that go and come; one whose value changes does both."""

    gone: Elements = field(default_factory=dict)
    come: Elements = field(default_factory=dict)

    def remove(self, name: str, key: str, value: str) -> None:
        """Note that an element goes from a set."""
        self.gone.setdefault(name, {})[key] = value

    def add(self, name: str, key: str, value: str) -> None:
        """Note that an element comes to a set."""
        self.come.setdefault(name, {})[key] = value

    def count(self) -> int:
        """Return how many elements differ."""
        return sum(len(self.gone.get(s, {}).keys() | self.come.get(s, {}).keys()) for s in SETS)


@dataclass(frozen=True, slots=True)
class Listing:
    """Our table as the kernel has it."""

    rules: str
    """All but the elements."""
    elements: Elements

    def is_looked_up(self, name: str) -> bool:
        """Return whether both nat chains ask a map."""
        return all(f"map @{name}" in _block(self.rules, "chain", chain) for chain in NAT_CHAINS)

    def refuse_port(self) -> int:
        """Return the refuse port of whoever wrote the rules, or 0."""
        found = re.search(r"udp dport (\d+) ct status dnat reject", self.rules)
        return int(found[1]) if found else 0

    def to_ip(self) -> str:
        """Return the address that ``prerouting`` translates to; empty for none."""
        found = re.search(r"dnat ip to ([0-9.]+):", self.rules)
        return found[1] if found else ""


def frontend_element(frontend: Frontend) -> tuple[str, str]:
    """Return the map that a frontend stands in, and its key."""
    return MAPS[frontend.family], frontend_key(frontend)


def guard_key(frontend: Frontend, port: int) -> str:
    """Return the key under which a frontend's proxy port is guarded."""
    return f"{NUMBERS[frontend.protocol]:d} . {port}"


def all_elements(ports: Mapping[Frontend, int], refuse_port: int) -> Elements:
    """Return the elements of all sets.

    Args:
        ports: Where each frontend is steered to.
        refuse_port: The one that isn't guarded as a proxy port is.
    """
    elements: Elements = {name: {} for name in SETS}
    for frontend, port in ports.items():
        name, key = frontend_element(frontend)
        elements[name][key] = str(port)
    elements[GUARDED] = dict.fromkeys(count_uses(ports, refuse_port), "")
    return elements


def count_uses(ports: Mapping[Frontend, int], refuse_port: int) -> Counter[str]:
    """Return how many frontends use each port, by its key in the guard."""
    return Counter(guard_key(f, port) for f, port in ports.items() if port != refuse_port)


def differing_elements(have: Elements, want: Elements) -> Changes:
    """Return what turns the elements of all sets into others."""
    changes = Changes()
    for name in SETS:
        old, new = have.get(name, {}), want[name]
        for key, value in old.items():
            if new.get(key) != value:
                changes.remove(name, key, value)
        for key, value in new.items():
            if old.get(key) != value:
                changes.add(name, key, value)
    return changes


def differing_frontends(
    before: Mapping[Frontend, int | None],
    touched: Mapping[Frontend, int | None],
    uses: Mapping[str, int],
    refuse_port: int,
) -> tuple[Changes, dict[str, int]]:
    """Return what some frontends' new ports mean for all sets.

    Args:
        before: Where those frontends were steered to; None, or not in it: they weren't.
        touched: Those that are steered elsewhere now, or no longer.
        uses: Of the ports before, by their keys in the guard.
        refuse_port: As for :func:`all_elements`.

    Returns:
        The changes, and the new uses of those ports whose uses are others.
    """
    changes = Changes()
    uses_now: dict[str, int] = {}

    def use(frontend: Frontend, port: int, by: int) -> None:
        if port != refuse_port:
            key = guard_key(frontend, port)
            uses_now[key] = uses_now.get(key, uses.get(key, 0)) + by

    for frontend, port in touched.items():
        name, key = frontend_element(frontend)
        old = before.get(frontend)
        if old is not None:
            changes.remove(name, key, str(old))
            use(frontend, old, -1)
        if port is not None:
            changes.add(name, key, str(port))
            use(frontend, port, 1)
    for key, count in uses_now.items():
        was = uses.get(key, 0)
        if was and not count:
            changes.remove(GUARDED, key, "")
        elif count and not was:
            changes.add(GUARDED, key, "")
    return changes, uses_now


def write_table(shape: Shape) -> str:
    """Return the commands that make the table anew, without elements."""
    return f"{write_removal(shape.table)}\n{_table(shape)}"


def write_prerouting(shape: Shape) -> str:
    """Return the commands that write the rules anew which depend on the node's address."""
    rules = "".join(f"\nadd rule inet {shape.table} prerouting {r}" for r in _prerouting(shape))
    return f"flush chain inet {shape.table} prerouting{rules}"


def write_changes(table: str, changes: Changes) -> list[str]:
    """Return the commands for some elements, to be run in this order.

    A port is guarded before the first frontend is steered to it.
    """
    gone = [("delete", name, changes.gone.get(name, {})) for name in SETS]
    come = [("add", name, changes.come.get(name, {})) for name in (GUARDED, *MAPS.values())]
    return [
        command
        for verb, name, elements in (*gone, *come)
        for command in write_elements(verb, table, name, (_element(*e) for e in elements.items()))
    ]


def read_listing(text: str) -> Listing:
    """Return what ``list table`` has printed; elements that we'd never write stay as they are."""
    elements: Elements = {}
    for name in SETS:
        kind = "set" if name == GUARDED else "map"
        _, _, inside = _block(text, kind, name).partition("elements = {")
        listed = (one.partition(" : ") for one in inside.rpartition("}")[0].split(","))
        elements[name] = {key.strip(): value.strip() for key, _, value in listed if key.strip()}
    return Listing(without_elements(text), elements)


def read_ports(elements: Elements, maps: Iterable[str] = MAPS.values()) -> dict[Frontend, int]:
    """Return where frontends are steered to by the elements of some maps.

    Those that we would never write are passed over.
    """
    ports = {}
    for name in maps:
        for key, value in elements.get(name, {}).items():
            found = _FRONTEND.fullmatch(f"{key} : {value}")
            if found:
                ip, number, port, to_port = found.groups()
                canonical = str(ipaddress.ip_address(ip)) if ":" in ip else ip
                ports[Frontend(canonical, int(port), _PROTOCOLS[number])] = int(to_port)
    return ports


def _table(shape: Shape) -> str:
    nat = f"type nat hook {{}} priority {NAT_PRIORITY}"
    sections = [
        *(
            write_section("map", name, [f"type {_ADDRESS[f]}_addr . {_PORT} : inet_service"])
            for f, name in MAPS.items()
        ),
        write_section("set", GUARDED, [f"type {_PORT}"]),
        write_section("chain", "prerouting", [nat.format("prerouting"), *_prerouting(shape)]),
        write_section("chain", "output", [nat.format("output"), *_OUTPUT]),
        write_section(
            "chain",
            "input",
            [f"type filter hook input priority {FILTER_PRIORITY}", *_guard(shape)],
        ),
    ]
    return f"table inet {shape.table} {{\n{''.join(sections)}}}"


_ADDRESS = {IPFamily.IPV4: "ipv4", IPFamily.IPV6: "ipv6"}
_PORT = "inet_proto . inet_service"
_LOOK_UP = {
    IPFamily.IPV4: f"ip daddr . meta l4proto . th dport map @{MAPS[IPFamily.IPV4]}",
    IPFamily.IPV6: f"ip6 daddr . meta l4proto . th dport map @{MAPS[IPFamily.IPV6]}",
}
# The kernel wants to know that there are ports before it lets a rule translate them.
_OUTPUT = tuple(f"meta l4proto {{ tcp, udp }} redirect to : {_LOOK_UP[f]}" for f in IPFamily)


def _prerouting(shape: Shape) -> tuple[str, ...]:
    """Return the rules for packets that come from outside or from pods.

    redirect drops packets from an interface without an IPv4 address; see interfaces.
    """
    if not shape.to_ip:
        return _OUTPUT
    to_node = f"meta l4proto {{ tcp, udp }} dnat ip to {shape.to_ip} : {_LOOK_UP[IPFamily.IPV4]}"
    return to_node, _OUTPUT[1]


def _guard(shape: Shape) -> Iterator[str]:
    """Yield who is refused at the ports that frontends are steered to.

    Of TCP only the SYN is asked how it came, as without one there is no connection: the kernel's
    own stack refuses whatever else arrives. UDP has no such packet: each is asked. What goes
    elsewhere costs one look into the set: its key has two parts because a set of bare ports
    would be a bitmap, into which the kernel puts 10,000 in half a second (measured).

    TCP that was steered to the refuse port is let in: the RST of the kernel's own stack, where
    nobody listens, reaches everybody. Source: docs/adr/0004.
    """
    guarded = f"meta l4proto . th dport @{GUARDED} ct status & dnat == 0 reject"
    # Not "tcp flags syn": that would pass over a SYN with FIN or RST too.
    yield f"tcp flags & (syn | ack) == syn {guarded} with tcp reset"
    yield f"meta l4proto udp {guarded}"
    if shape.refuse_port:
        yield f"udp dport {shape.refuse_port} ct status dnat reject"


def _element(key: str, value: str) -> str:
    return f"{key} : {value}" if value else key


def _block(text: str, kind: str, name: str) -> str:
    """Return what stands between the braces of a set, map or chain; empty without it."""
    return text.partition(f"\n\t{kind} {name} {{\n")[2].partition("\n\t}")[0]
