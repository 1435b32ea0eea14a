"""Decides whether a client's first packet to a frontend meets the conditions of a rule; pure."""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from ..kernel.interfaces import is_local
from ..model import Frontend, FrontendKind, IPFamily, Protocol
from ..policy.locality import PodLink
from .chains import Marking, Step
from .matches import (
    LOOPBACK,
    Bits,
    Condition,
    Match,
    MatchField,
    Unknown,
    ends_of,
    number_of,
)

ANY_IP = {IPFamily.IPV4: "0.0.0.0", IPFamily.IPV6: "::"}
"""In a frontend: an address that isn't known. So is the port 0."""


class PacketMark(NamedTuple):
    """What is known of a packet's mark."""

    known: int = 0
    """The bits that are known."""
    value: int = 0
    """Of these; the others are 0."""

    def has(self, bits: Bits) -> bool | None:
        """Return whether bits of it have a value; None if that isn't known."""
        if bits.value & ~bits.mask or (self.value ^ bits.value) & bits.mask & self.known:
            return False
        return None if bits.mask & ~self.known else True

    def after(self, marking: Marking) -> PacketMark:
        """Return what is known after a rule has changed it."""
        kept, value = self.known & ~marking.cleared, self.value & ~marking.cleared
        if marking.flipped is None:
            return PacketMark(kept, value)
        known = kept | marking.cleared
        return PacketMark(known, (value ^ marking.flipped) & known)


UNMARKED = PacketMark()
"""Nothing is known of it: other tables, and the interface's driver, may have set it."""


class FirstPacket(NamedTuple):
    """The first packet of a client, or the answer to one, as rules see it at one place."""

    frontend: Frontend
    """What the client has dialled; the endpoint where the kernel forwards packets to it."""
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
    """By which it comes in, from the networks behind it; None: any client's."""
    is_other: bool = False
    """Whether it comes from an address that no rule is about."""
    is_forwarded: bool = False
    """Whether the kernel has translated it, and leads it past this node's sockets."""
    way_out: PodLink | None = None
    """By which it is forwarded; None: that isn't known."""

    def meets(self, step: Step, mark: PacketMark = UNMARKED) -> bool | None:
        """Return whether it meets a rule; None if it depends on what isn't understood."""
        return meets(step.matches, self, mark)

    def into(self, _step: Step) -> FirstPacket:
        """Return what follows a chain that a rule leads to."""
        return self


class Named(NamedTuple):
    """The single addresses and ports in conditions, without networks and spans of ports."""

    ips: frozenset[str] = frozenset()
    ports: frozenset[int] = frozenset()
    dialled_ports: frozenset[int] = frozenset()
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


def meets(
    conditions: Iterable[Condition], packet: FirstPacket, mark: PacketMark = UNMARKED
) -> bool | None:
    """Return whether the first packet of a client meets all of some conditions.

    Returns:
        None if it depends on a condition that isn't understood.
    """
    is_met: bool | None = True
    for one in conditions:
        result = None
        if isinstance(one, Match):
            if one.field is MatchField.MARK:
                result = _any_of(map(mark.has, one.bits))
            else:
                result = _TESTS[one.field](one, packet)
            if result is one.is_inverted:
                return False
        if result is None:
            is_met = None
    return is_met


def may_be_first(conditions: Iterable[Condition]) -> bool:
    """Return whether all first packets may meet conditions, if none is about what was dialled."""
    return not any(
        is_of_client(one)
        or (
            isinstance(one, Match)
            and one.field is MatchField.STATE
            and {"new", "dnat"}.isdisjoint(one.values) is not one.is_inverted
        )
        for one in conditions
    )


def is_of_client(one: Condition) -> bool:
    """Return whether a condition is about the client alone.

    Then it is about the source, or the interface by which packets come in, unless that is the
    loopback interface.
    """
    if isinstance(one, Match):
        is_way_in = one.field is MatchField.WAY_IN and LOOPBACK not in one.values
        return is_way_in or one.field is MatchField.SOURCE
    return isinstance(one, Unknown) and one.about is MatchField.SOURCE


def names_address(conditions: Iterable[Condition]) -> bool:
    """Return whether one of some conditions is on the destination, or looks its port up."""
    return any(
        (isinstance(one, Match) and one.field in _OF_ADDRESS)
        or (isinstance(one, Unknown) and one.about in _LOOKED_UP)
        for one in conditions
    )


def named_in(conditions: Iterable[Condition]) -> Named:
    """Return the single addresses and ports in conditions on the destination."""
    found = [one for one in conditions if isinstance(one, Match)]
    networks = [net for one in found if one.field in _OF_ADDRESS for net in one.networks]
    ports = [ends for one in found if one.field is MatchField.DESTINATION_PORT for ends in one.ends]
    dialled = [ends for one in found if one.field is MatchField.DIALLED_PORT for ends in one.ends]
    return Named(
        frozenset(str(net.network_address) for net in networks if net.num_addresses == 1),
        frozenset(first for first, last in ports if first == last),
        frozenset(first for first, _ in dialled),
        frozenset((a, b) for a, b in ports if _NODE_PORTS[0] <= a < b <= _NODE_PORTS[1]),
    )


_ANY_IPS = frozenset(ANY_IP.values())
_OF_ADDRESS = (MatchField.DESTINATION, MatchField.DIALLED_ADDRESS, MatchField.TO_THIS_NODE)
_LOOKED_UP = (MatchField.DESTINATION, MatchField.DESTINATION_PORT)
_UNPRIVILEGED = 1024
# The default of --service-node-port-range of kube-apiserver.
_NODE_PORTS = 30000, 32767
# Of the TCP header.
_SYN, _ACK = 0x02, 0x10
_PROTOCOLS = {Protocol.TCP: "tcp", Protocol.UDP: "udp"}


def _any_of(results: Iterable[bool | None]) -> bool | None:
    found = set(results)
    return True if True in found else None if None in found else False


def _has_any(match: Match, packet: FirstPacket) -> bool | None:
    """Return whether networks have an address that isn't known."""
    is_whole = match.versions.get(packet.frontend.family)
    return False if is_whole is None else is_whole or None


def _has_port(match: Match, port: int) -> bool | None:
    return match.has(port) if port else None


def _dialled_address(match: Match, packet: FirstPacket) -> bool | None:
    if packet.is_forwarded or packet.frontend.ip in _ANY_IPS:
        return _has_any(match, packet)
    return match.has(_number(packet.frontend.ip))


def _destination(match: Match, packet: FirstPacket) -> bool | None:
    # Which of its addresses a node translates to depends on the interface.
    if packet.port or packet.is_answer or packet.frontend.ip in _ANY_IPS:
        return _has_any(match, packet)
    return match.has(_number(packet.frontend.ip))


def _source(match: Match, packet: FirstPacket) -> bool | None:
    family = packet.frontend.family
    if packet.is_answer and packet.frontend.ip not in _ANY_IPS:
        return match.has(_number(packet.frontend.ip))
    link = packet.link
    if packet.is_other:
        return match.versions.get(family, False)
    pods = [ends_of(one) for one in link.networks if one.version == family] if link else []
    if not pods:
        return None
    if not any(first <= b and a <= last for a, b in pods for first, last in match.ends):
        return False
    # All of them may be in it, or some.
    return all(any(first <= a and b <= last for first, last in match.ends) for a, b in pods) or None


def _by_link(match: Match, link: PodLink | None, *, is_loopback: bool) -> bool | None:
    return _any_of(_is_link(wanted, link, is_loopback=is_loopback) for wanted in match.values)


def _is_link(wanted: object, link: PodLink | None, *, is_loopback: bool) -> bool | None:
    if is_loopback or wanted == LOOPBACK:
        return is_loopback and wanted == LOOPBACK
    if link is None:
        return None
    if isinstance(wanted, str):
        name = link.name
        return name.startswith(wanted[:-1]) if wanted.endswith("*") else name == wanted
    return link.number == wanted


def _way_out(match: Match, packet: FirstPacket) -> bool | None:
    is_loopback = not packet.is_forwarded and is_local(packet.frontend.ip)
    return _by_link(match, packet.way_out, is_loopback=is_loopback)


def _destination_port(match: Match, packet: FirstPacket) -> bool | None:
    if packet.is_answer:
        return None if any(last >= _UNPRIVILEGED for _, last in match.ends) else False
    return _has_port(match, packet.port or packet.frontend.port)


def _source_port(match: Match, packet: FirstPacket) -> bool | None:
    # That of a client may be any.
    return _has_port(match, packet.frontend.port) if packet.is_answer else None


def _is_translated(packet: FirstPacket) -> bool:
    return bool(packet.port) or packet.is_forwarded


def _state(match: Match, packet: FirstPacket) -> bool:
    state = "established" if packet.is_answer else "new"
    return state in match.values or (_is_translated(packet) and "dnat" in match.values)


def _to_this_node(_match: Match, packet: FirstPacket) -> bool:
    if packet.is_forwarded:
        return False
    return bool(packet.port) or packet.is_answer or is_local(packet.frontend.ip)


def _flags(match: Match, packet: FirstPacket) -> bool:
    if packet.frontend.protocol is not Protocol.TCP:
        # It has none, so it meets no condition on them.
        return match.is_inverted
    flags = _SYN | _ACK if packet.is_answer else _SYN
    return all(flags & one.mask == one.value for one in match.bits)


# Each rule is checked for thousands of frontends.
_TESTS: Mapping[MatchField, Callable[[Match, FirstPacket], bool | None]] = {
    MatchField.DIALLED_ADDRESS: _dialled_address,
    MatchField.DIALLED_PORT: lambda match, packet: (
        None if packet.is_forwarded else _has_port(match, packet.frontend.port)
    ),
    MatchField.DESTINATION: _destination,
    MatchField.SOURCE: _source,
    MatchField.DESTINATION_PORT: _destination_port,
    MatchField.SOURCE_PORT: _source_port,
    MatchField.PROTOCOL: lambda match, packet: _PROTOCOLS[packet.frontend.protocol] in match.values,
    MatchField.FAMILY: lambda match, packet: f"ipv{packet.frontend.family:d}" in match.values,
    MatchField.STATE: _state,
    MatchField.TRANSLATED: lambda _match, packet: _is_translated(packet),
    MatchField.TO_THIS_NODE: _to_this_node,
    MatchField.WAY_IN: lambda match, packet: _by_link(
        match, packet.link, is_loopback=packet.is_own
    ),
    MatchField.WAY_OUT: _way_out,
    MatchField.LIMIT: lambda match, packet: packet.is_over == ("over" in match.values),
    MatchField.TCP_FLAGS: _flags,
    # Depends on what listens. Dials from this node's own address don't have one.
    MatchField.TRANSPARENT_SOCKET: lambda _match, packet: False if packet.is_answer else None,
}


@functools.lru_cache(maxsize=1000)
def _number(ip: str) -> int:
    return number_of(ipaddress.ip_address(ip))
