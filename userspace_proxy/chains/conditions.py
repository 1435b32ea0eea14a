"""Decides whether a client's first packet to a frontend meets the conditions of a rule; pure."""

from __future__ import annotations

import functools
import ipaddress
import re
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from ..kernel.interfaces import is_local
from ..model import Frontend, FrontendKind, Protocol
from ..model.addresses import Network
from ..policy.locality import PodLink


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
    link: PodLink | None = None
    """By which it comes in, from a pod of this node; None: any client's."""


class Named(NamedTuple):
    """The single addresses and ports in conditions, without networks and spans of ports."""

    ips: frozenset[str]
    ports: frozenset[int]
    dialled_ports: frozenset[int]
    node_ports: frozenset[tuple[int, int]] = frozenset()
    """Spans of ports that are all node ports."""

    def has(self, frontend: Frontend, port: int = 0) -> bool:
        """Return whether one belongs to a frontend.

        The address of a node port belongs to the node, and the port of any other frontend, such as
        80, to many Services.

        Args:
            port: The port that it has been translated to; 0: it hasn't been.
        """
        if port in self.ports:
            return True
        if frontend.kind is not FrontendKind.NODE_PORT:
            return frontend.ip in self.ips
        if frontend.port in self.dialled_ports:
            return True
        spans = any(first <= frontend.port <= last for first, last in self.node_ports)
        return not port and (frontend.port in self.ports or spans)


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
    if of_clients(condition)[0]:
        return False
    return all({"new", "dnat"} & {*states.split(",")} for states in _STATES.findall(condition))


@functools.lru_cache(maxsize=1000)
def of_clients(condition: str) -> tuple[Sequence[str], str]:
    """Return the conditions on the client alone, and the other ones.

    The first are about the source, or the interface by which packets come in, unless that is the
    loopback interface.
    """
    found = tuple(one.strip() for one in _OF_CLIENTS.findall(condition))
    return found, _OF_CLIENTS.sub("", condition).strip()


@functools.lru_cache(maxsize=1000)
def named_in(condition: str) -> Named:
    """Return the single addresses and ports in a condition on the destination."""
    networks = (ipaddress.ip_network(one, strict=False) for one in _listed(_DADDR, condition))
    ips = (str(one.network_address) for one in networks if one.num_addresses == 1)
    ports, dialled = (map(int, _listed(p, condition)) for p in (_DPORT, _DIALLED_PORT))
    return Named(frozenset(ips), frozenset(ports), frozenset(dialled), _node_ports(condition))


def _node_ports(condition: str) -> frozenset[tuple[int, int]]:
    """Return the spans of ports in a condition that are all node ports."""
    spans = (one.partition("-") for one in _values(_DPORT, condition) if "-" in one)
    found = ((int(first), int(last)) for first, _, last in spans)
    return frozenset(one for one in found if _NODE_PORTS[0] <= one[0] and one[1] <= _NODE_PORTS[1])


def _listed(pattern: re.Pattern[str], condition: str) -> Sequence[str]:
    return [one for one in _values(pattern, condition) if "-" not in one]


def _values(pattern: re.Pattern[str], condition: str) -> Iterator[str]:
    return (one for values in pattern.findall(condition) for one in values.split(","))


_UNPRIVILEGED = 1024
# The default of --service-node-port-range of kube-apiserver.
_NODE_PORTS = 30000, 32767
# Of the TCP header.
_SYN, _ACK = 0x02, 0x10
_Test = Callable[[FirstPacket], bool | None]


def _address(text: str) -> _Test:
    is_in = _within(text)
    networks = [ipaddress.ip_network(one, strict=False) for one in text.split(",")]
    versions = {network.version for network in networks}
    whole = {network.version for network in networks if not network.prefixlen}

    def test(packet: FirstPacket) -> bool | None:
        if not packet.port and not packet.is_answer:
            return is_in(packet)
        # Which of its addresses a node translates to depends on the interface.
        version = _ip(packet.frontend.ip).version
        return False if version not in versions else True if version in whole else None

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


def _source(inverted: str, text: str) -> _Test:
    is_in = _within(text)
    is_wanted = not inverted

    def test(packet: FirstPacket) -> bool | None:
        if packet.is_answer:
            return is_in(packet) is is_wanted
        found = _come_from(packet.link, packet.frontend.family, text) if packet.link else None
        return None if found is None else found is is_wanted

    return test


def _come_from(link: PodLink, version: int, text: str) -> bool | None:
    """Return whether all pods of a link are in one of some networks, or none of them is."""
    pods = [_ends(pod) for pod in link.networks if pod.version == version]
    if not pods:
        return None
    wanted = _ends_of_all(version, text)
    if not any(first <= b and a <= last for a, b in pods for first, last in wanted):
        return False
    return all(any(first <= a and b <= last for first, last in wanted) for a, b in pods) or None


# A rule may have two hundred sources.
@functools.lru_cache(maxsize=1000)
def _ends_of_all(version: int, text: str) -> Sequence[tuple[int, int]]:
    networks = (ipaddress.ip_network(one, strict=False) for one in text.split(","))
    return [_ends(network) for network in networks if network.version == version]


@functools.lru_cache(maxsize=1000)
def _ends(network: Network) -> tuple[int, int]:
    """Return the first and the last address of a network as numbers."""
    return int(network.network_address), int(network.broadcast_address)


def _way_in(by_name: str, inverted: str, text: str) -> _Test:
    def test(packet: FirstPacket) -> bool | None:
        if packet.is_own:
            # By the loopback interface, which has another pattern.
            return bool(inverted)
        if packet.link is None:
            return None
        number, name, _ = packet.link
        if by_name:
            is_it = name.startswith(text[:-1]) if text.endswith("*") else name == text
        else:
            is_it = number == int(text)
        return is_it is not bool(inverted)

    return test


def _dialled_port(text: str) -> _Test:
    port = int(text)
    return lambda packet: packet.frontend.port == port


def _ports(protocol: str, text: str) -> _Test:
    spans = [(int(a), int(b or a)) for a, _, b in (one.partition("-") for one in text.split(","))]
    singles = {first for first, last in spans if first == last}
    wide = [(first, last) for first, last in spans if first != last]

    def test(packet: FirstPacket) -> bool | None:
        if protocol not in ("th", _name(packet.frontend)):
            return False
        if packet.is_answer:
            return None if any(last >= _UNPRIVILEGED for _, last in spans) else False
        port = packet.port or packet.frontend.port
        return port in singles or any(first <= port <= last for first, last in wide)

    return test


def _source_ports(protocol: str, text: str) -> _Test:
    is_in = _ports(protocol, text)

    def test(packet: FirstPacket) -> bool | None:
        is_from_them = is_in(packet._replace(is_answer=False, port=0))
        # That of a client may be any.
        is_any = not packet.is_answer and protocol in ("th", _name(packet.frontend))
        return None if is_any else is_from_them

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
_OF_CLIENTS = re.compile(
    r"(?:^| )((?:ip6? saddr|iif(?:name)?(?! lo(?: |$))) (?:!= )?\S+|…saddr)(?= |$)"
)
_DADDR = re.compile(r"ip6? daddr ([\da-f]\S*)")
_DPORT = re.compile(r" dport (\d[\d,-]*)")
_DIALLED_PORT = re.compile(r"proto-dst (\d+)")
# What was dialled comes first: its words contain those of the address.
_CONDITIONS: Sequence[tuple[re.Pattern[str], Callable[..., _Test]]] = (
    (re.compile(r"ct original ip6? daddr (\S+)"), _within),
    (re.compile(r"ct original proto-dst (\d+)"), _dialled_port),
    (re.compile(r"ip6? daddr (\S+)"), _address),
    (re.compile(r"ip6? saddr (!= )?(\S+)"), _source),
    (re.compile(r"(tcp|udp|th|\d+) dport (\d[\d,-]*)"), _ports),
    (re.compile(r"(tcp|udp|th|\d+) sport (\d[\d,-]*)"), _source_ports),
    (re.compile(r"meta l4proto (\S+)"), _protocols),
    (re.compile(r"meta nfproto (\S+)"), _family),
    (_STATES, _states),
    (re.compile(r"ct status (! )?dnat"), _translated),
    (re.compile(r"fib daddr type (local)"), _to_this_node),
    (re.compile(r"iif (lo)"), _from_this_node),
    (re.compile(r"iif(name)? (!= )?(\S+)"), _way_in),
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
