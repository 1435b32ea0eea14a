"""Decides whether a client's first packet to a frontend meets the conditions of a rule; pure."""

from __future__ import annotations

import functools
import ipaddress
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from ...model import Frontend, Protocol
from ..interfaces import is_local


class FirstPacket(NamedTuple):
    """The first packet of a client, or the answer to one, as rules see it at one place."""

    frontend: Frontend
    """What the client has dialled."""
    port: int = 0
    """Which port of this node it has been translated to, and to an address of this node; 0: it
    hasn't been translated."""
    is_own: bool = False
    """Whether a program of this node is the client; else a pod, or another host."""
    is_over: bool = False
    """Whether it comes when the limits of rules are exceeded."""
    is_answer: bool = False
    """Whether it comes from what was dialled, to an unprivileged port of this node."""


def meets(condition: str, packet: FirstPacket) -> bool | None:
    """Return whether the first packet of a client meets a rule's condition.

    Args:
        condition: In the syntax of nft, with ``…`` for what isn't understood, and several values
            separated by commas; empty: every packet.

    Returns:
        None if it depends on a condition that isn't understood.
    """
    tests, is_understood = _parse(condition)
    is_met: bool | None = True if is_understood else None
    for test in tests:
        if (result := test(packet)) is False:
            return False
        is_met = is_met and result
    return is_met


def may_be_first(condition: str) -> bool:
    """Return whether all first packets may meet a condition, if it isn't about what was dialled."""
    if "saddr" in condition:
        return False
    return all({"new", "dnat"} & {*states.split(",")} for states in _STATES.findall(condition))


_UNPRIVILEGED = 1024
# Of the TCP header.
_SYN, _ACK = 0x02, 0x10
_Test = Callable[[FirstPacket], bool | None]


def _address(text: str) -> _Test:
    is_in = _within(text)
    networks = [ipaddress.ip_network(one, strict=False) for one in text.split(",")]

    def test(packet: FirstPacket) -> bool | None:
        if not packet.port and not packet.is_answer:
            return is_in(packet)
        # Which of its addresses a node translates to depends on the interface.
        version = _ip(packet.frontend.ip).version
        same = [network for network in networks if network.version == version]
        return False if not same else True if not all(n.prefixlen for n in same) else None

    return test


def _within(text: str) -> Callable[[FirstPacket], bool]:
    """Return whether what was dialled is in one of some networks."""
    networks = [ipaddress.ip_network(one, strict=False) for one in text.split(",")]
    hosts = {network.network_address for network in networks if network.num_addresses == 1}
    wide = [network for network in networks if network.num_addresses > 1]

    def test(packet: FirstPacket) -> bool:
        ip = _ip(packet.frontend.ip)
        return ip in hosts or any(ip in network for network in wide)

    return test


def _source(text: str) -> _Test:
    is_in = _within(text)
    return lambda packet: is_in(packet) if packet.is_answer else None


def _dialled_port(text: str) -> _Test:
    port = int(text)
    return lambda packet: packet.frontend.port == port


def _ports(protocol: str, text: str) -> _Test:
    spans = [(int(a), int(b or a)) for a, _, b in (one.partition("-") for one in text.split(","))]

    def test(packet: FirstPacket) -> bool | None:
        if protocol not in ("th", _name(packet.frontend)):
            return False
        if packet.is_answer:
            return None if any(last >= _UNPRIVILEGED for _, last in spans) else False
        port = packet.port or packet.frontend.port
        return any(first <= port <= last for first, last in spans)

    return test


def _protocols(text: str) -> _Test:
    names = text.split(",")
    return lambda packet: _name(packet.frontend) in names


def _family(text: str) -> _Test:
    return lambda packet: f"ipv{_ip(packet.frontend.ip).version}" == text


def _states(text: str) -> _Test:
    names = text.split(",")

    def test(packet: FirstPacket) -> bool:
        if packet.is_answer:
            return "established" in names
        return "new" in names or (bool(packet.port) and "dnat" in names)

    return test


def _translated(inverted: str) -> _Test:
    return lambda packet: bool(packet.port) is not bool(inverted)


def _to_this_node(_text: str) -> _Test:
    return lambda packet: bool(packet.port) or packet.is_answer or is_local(packet.frontend.ip)


def _to_own_address(_text: str) -> _Test:
    return lambda packet: is_local(packet.frontend.ip)


def _from_this_node(_text: str) -> _Test:
    return lambda packet: packet.is_own


def _limit(text: str) -> _Test:
    return lambda packet: packet.is_over == (text == "over")


def _flags(mask: str, sign: str, value: str) -> _Test:
    def test(packet: FirstPacket) -> bool:
        flags = _SYN | _ACK if packet.is_answer else _SYN
        is_same = flags & int(mask) == int(value)
        return _name(packet.frontend) == "tcp" and is_same == (sign == "==")

    return test


_STATES = re.compile(r"ct state (\S+)")
# What was dialled comes first: its words contain those of the address.
_CONDITIONS: Sequence[tuple[re.Pattern[str], Callable[..., _Test]]] = (
    (re.compile(r"ct original ip6? daddr (\S+)"), _within),
    (re.compile(r"ct original proto-dst (\d+)"), _dialled_port),
    (re.compile(r"ip6? daddr (\S+)"), _address),
    (re.compile(r"ip6? saddr (\S+)"), _source),
    (re.compile(r"(tcp|udp|th|\d+) dport (\d[\d,-]*)"), _ports),
    (re.compile(r"meta l4proto (\S+)"), _protocols),
    (re.compile(r"meta nfproto (\S+)"), _family),
    (_STATES, _states),
    (re.compile(r"ct status (! )?dnat"), _translated),
    (re.compile(r"fib daddr type (local)"), _to_this_node),
    (re.compile(r"iif (lo)"), _from_this_node),
    (re.compile(r"oif (lo)"), _to_own_address),
    (re.compile(r"limit (over|within)"), _limit),
    (re.compile(r"tcp flags (\d+) (==|!=) (\d+)"), _flags),
)


# Each rule is checked for thousands of frontends.
@functools.lru_cache(maxsize=1000)
def _parse(condition: str) -> tuple[Sequence[_Test], bool]:
    """Return the tests of a condition, and whether they are all that it has."""
    tests: list[_Test] = []
    for pattern, make in _CONDITIONS:
        tests += [make(*found.groups()) for found in pattern.finditer(condition)]
        condition = pattern.sub("", condition)
    return tests, not condition.strip()


@functools.lru_cache(maxsize=1000)
def _ip(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    return ipaddress.ip_address(text)


def _name(frontend: Frontend) -> str:
    return "tcp" if frontend.protocol is Protocol.TCP else "udp"
