"""Decides whether a client's first packet to a frontend meets the conditions of a rule; pure."""

from __future__ import annotations

import functools
import ipaddress
import re
from typing import NamedTuple

from ...model import Frontend, Protocol
from ..interfaces import is_local

_ADDRESS = re.compile(r"ip6? daddr (\S+)")
_PORT = re.compile(r"(tcp|udp|th|\d+) dport (\d+)(?:-(\d+))?")
_PROTOCOL = re.compile(r"meta l4proto (\S+)")
_FAMILY = re.compile(r"meta nfproto (\S+)")
_STATES = re.compile(r"ct state (\S+)")
_LOCAL = re.compile("fib daddr type local")


def meets(condition: str, frontend: Frontend) -> bool | None:
    """Return whether the first packet of a client of a frontend meets a rule's condition.

    Args:
        condition: In the syntax of nft, with ``…`` for what isn't understood; empty: every packet.

    Returns:
        None if it depends on a condition that isn't understood.
    """
    parsed = _parse(condition)
    ip = _address(frontend.ip)
    protocol = "tcp" if frontend.protocol is Protocol.TCP else "udp"
    is_met = (
        all(ip in network for network in parsed.networks)
        and all(name in (protocol, "th") for name, _, _ in parsed.ports)
        and all(first <= frontend.port <= last for _, first, last in parsed.ports)
        and all(name == protocol for name in parsed.protocols)
        and all(name == f"ipv{ip.version}" for name in parsed.families)
        and all("new" in states.split(",") for states in parsed.states)
        and (not parsed.is_for_this_node or is_local(frontend.ip))
    )
    return False if not is_met else True if parsed.is_understood else None


class _Condition(NamedTuple):
    """A parsed condition."""

    networks: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]
    ports: tuple[tuple[str, int, int], ...]
    """Protocol, first and last."""
    protocols: tuple[str, ...]
    families: tuple[str, ...]
    states: tuple[str, ...]
    is_for_this_node: bool
    is_understood: bool


# Each rule is checked for thousands of frontends.
@functools.lru_cache(maxsize=1000)
def _parse(condition: str) -> _Condition:
    rest = condition
    for pattern in (_ADDRESS, _PORT, _PROTOCOL, _FAMILY, _STATES, _LOCAL):
        rest = pattern.sub("", rest)
    return _Condition(
        tuple(ipaddress.ip_network(n, strict=False) for n in _ADDRESS.findall(condition)),
        tuple((name, int(a), int(b or a)) for name, a, b in _PORT.findall(condition)),
        tuple(_PROTOCOL.findall(condition)),
        tuple(_FAMILY.findall(condition)),
        tuple(_STATES.findall(condition)),
        _LOCAL.search(condition) is not None,
        not rest.strip(),
    )


@functools.lru_cache(maxsize=1000)
def _address(ip: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    return ipaddress.ip_address(ip)
