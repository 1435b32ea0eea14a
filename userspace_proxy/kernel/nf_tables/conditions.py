"""Decides whether a client's first packet to a frontend meets the conditions of a rule; pure."""

from __future__ import annotations

import functools
import ipaddress
import re
from collections.abc import Sequence
from typing import NamedTuple

from ...model import Frontend, Protocol
from ..interfaces import is_local

_DIALLED = re.compile(r"ct original ip6? daddr (\S+)")
_DIALLED_PORT = re.compile(r"ct original proto-dst (\d+)")
_ADDRESS = re.compile(r"ip6? daddr (\S+)")
_PORTS = re.compile(r"(tcp|udp|th|\d+) dport (\d[\d,-]*)")
_PROTOCOL = re.compile(r"meta l4proto (\S+)")
_FAMILY = re.compile(r"meta nfproto (\S+)")
_STATES = re.compile(r"ct state (\S+)")
_TRANSLATED = re.compile("ct status (! )?dnat")
_LOCAL = re.compile("fib daddr type local")
_FROM_HERE = re.compile("iif lo")
_PATTERNS = (
    *(_DIALLED, _DIALLED_PORT, _ADDRESS, _PORTS, _PROTOCOL, _FAMILY, _STATES),
    *(_TRANSLATED, _LOCAL, _FROM_HERE),
)
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class FirstPacket(NamedTuple):
    """The first packet of a client, as rules see it at one place on its way."""

    frontend: Frontend
    """What the client has dialled."""
    port: int = 0
    """Which port of this node it has been translated to, and to an address of this node; 0: it
    hasn't been translated."""
    is_own: bool = False
    """Whether a program of this node is the client; else a pod, or another host."""


def meets(condition: str, packet: FirstPacket) -> bool | None:
    """Return whether the first packet of a client meets a rule's condition.

    Args:
        condition: In the syntax of nft, with ``…`` for what isn't understood, and several values
            separated by commas; empty: every packet.

    Returns:
        None if it depends on a condition that isn't understood.
    """
    parsed = _parse(condition)
    frontend, port, is_own = packet
    ip = _address(frontend.ip)
    protocol = "tcp" if frontend.protocol is Protocol.TCP else "udp"
    # Which of its addresses a node translates to depends on the interface.
    networks = (*parsed.dialled, *(() if port else parsed.networks))
    is_met = (
        all(ip in network for network in networks)
        and all(ip.version == network.version for network in parsed.networks)
        and all(name in (protocol, "th") for name, _ in parsed.ports)
        and all(_within(port or frontend.port, spans) for _, spans in parsed.ports)
        and all(frontend.port == number for number in parsed.dialled_ports)
        and all(protocol in names for names in parsed.protocols)
        and all(name == f"ipv{ip.version}" for name in parsed.families)
        and all(_has_state(states.split(","), bool(port)) for states in parsed.states)
        and all(bool(port) is not is_not for is_not in parsed.translated)
        and (not parsed.is_for_this_node or bool(port) or is_local(frontend.ip))
        and (not parsed.is_from_here or is_own)
    )
    is_understood = parsed.is_understood and not (
        port and any(n.prefixlen for n in parsed.networks)
    )
    return False if not is_met else True if is_understood else None


def may_be_first(condition: str) -> bool:
    """Return whether some first packet may meet a condition, whatever it has dialled."""
    return all({"new", "dnat"} & {*states.split(",")} for states in _parse(condition).states)


def _within(port: int, spans: Sequence[tuple[int, int]]) -> bool:
    return any(first <= port <= last for first, last in spans)


def _has_state(states: Sequence[str], is_translated: bool) -> bool:
    return "new" in states or (is_translated and "dnat" in states)


class _Condition(NamedTuple):
    """A parsed condition."""

    dialled: tuple[_Network, ...]
    dialled_ports: tuple[int, ...]
    networks: tuple[_Network, ...]
    ports: tuple[tuple[str, tuple[tuple[int, int], ...]], ...]
    """Protocol, and first and last of each span."""
    protocols: tuple[Sequence[str], ...]
    families: tuple[str, ...]
    states: tuple[str, ...]
    translated: tuple[bool, ...]
    """False for "translated", True for "not translated"."""
    is_for_this_node: bool
    is_from_here: bool
    is_understood: bool


# Each rule is checked for thousands of frontends.
@functools.lru_cache(maxsize=1000)
def _parse(condition: str) -> _Condition:
    # Addresses and ports that were dialled come first: their words contain the others'.
    rest, found = condition, {}
    for pattern in _PATTERNS:
        found[pattern] = pattern.findall(rest)
        rest = pattern.sub("", rest)
    ports = [(name, tuple(map(_span, many.split(",")))) for name, many in found[_PORTS]]
    return _Condition(
        _networks(found[_DIALLED]),
        tuple(map(int, found[_DIALLED_PORT])),
        _networks(found[_ADDRESS]),
        tuple(ports),
        tuple(names.split(",") for names in found[_PROTOCOL]),
        tuple(found[_FAMILY]),
        tuple(found[_STATES]),
        tuple(map(bool, found[_TRANSLATED])),
        bool(found[_LOCAL]),
        bool(found[_FROM_HERE]),
        not rest.strip(),
    )


def _span(text: str) -> tuple[int, int]:
    first, _, last = text.partition("-")
    return int(first), int(last or first)


def _networks(found: Sequence[str]) -> tuple[_Network, ...]:
    return tuple(ipaddress.ip_network(network, strict=False) for network in found)


@functools.lru_cache(maxsize=1000)
def _address(ip: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    return ipaddress.ip_address(ip)
