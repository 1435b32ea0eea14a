"""Decides whether a client's first packet to a frontend meets the conditions of a rule; pure."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from ..kernel.interfaces import is_local
from ..model import Frontend, IPFamily, Protocol, pack_ip
from ..policy.locality import PodLink
from .matches import (
    LOOPBACK,
    Condition,
    Match,
    MatchField,
    ends_of,
)

ANY_IP = {IPFamily.IPV4: "0.0.0.0", IPFamily.IPV6: "::"}
"""The placeholder for an unknown address in a frontend; an unknown port is 0."""


class FirstPacket(NamedTuple):
    """A client's first packet, or the answer to it, as the rules at one hook see it."""

    frontend: Frontend
    """The dialled frontend; the endpoint if the kernel forwards packets to it."""
    port: int = 0
    """The port to which the packet was translated, at an address of this node; 0 before
    translation."""
    is_own: bool = False
    """Whether the client is a program of this node, not a pod or another host."""
    is_answer: bool = False
    """Whether the packet is an answer from the dialled address, to an unprivileged port."""
    link: PodLink | None = None
    """The incoming link, with the source networks behind it; None if it may be any link."""
    is_other: bool = False
    """Whether the packet's source is an address that no rule names."""
    is_forwarded: bool = False
    """Whether the kernel has translated the packet, and forwards it."""
    way_out: PodLink | None = None
    """The outgoing link; None if unknown."""
    is_tracked: bool = True
    """Whether the packet has passed connection tracking; otherwise its state is unknown."""
    is_drawn: bool | None = None
    """Whether the packet meets conditions on random numbers and hashes; None if unknown."""
    is_limited: bool | None = None
    """Whether the packet meets conditions on rates and on numbers of connections; None if unknown,
    as for a certain drop."""
    is_to_client: bool = False
    """Whether the packet is this node's answer to a client; a ``port`` other than 0 is its source.
    Otherwise an answer that isn't forwarded is an endpoint's answer to this node."""

    def of(self, client: PodLink) -> FirstPacket:
        """Return the packet as one from, or an answer to, a client behind a link."""
        return self._replace(way_out=client) if self.is_to_client else self._replace(link=client)


def meets(conditions: Iterable[Condition], packet: FirstPacket) -> bool | None:
    """Return whether a packet meets all of the conditions.

    Returns: None if no condition fails, but some are unknown.
    """
    is_met: bool | None = True
    for one in conditions:
        result = None
        if isinstance(one, Match) and (packet.is_tracked or one.field not in _TRACKED):
            result = _TESTS[one.field](one, packet)
            if result is one.is_inverted:
                return False
        if result is None:
            is_met = None
    return is_met


def may_be_first(conditions: Iterable[Condition], *, is_answer: bool = False) -> bool:
    """Return whether conditions may hold for every client's first packet to some frontend.

    Args:
        is_answer: Whether the packets are the answers to clients.
    """
    fields = _OF_ANSWERS if is_answer else _OF_FIRST
    return all(isinstance(one, Match) and _may_be_first(one, *fields) for one in conditions)


def _may_be_first(one: Match, state: str, address: MatchField, way: MatchField) -> bool:
    if one.field is MatchField.STATE:
        return {state, "dnat"}.isdisjoint(one.values) is one.is_inverted
    # Links and addresses differ between clients, but only this node's programs use loopback.
    return one.field not in (address, MatchField.DRAWN, MatchField.LIMIT) and (
        one.field is not way or LOOPBACK in one.values
    )


_OF_FIRST = "new", MatchField.SOURCE, MatchField.WAY_IN
_OF_ANSWERS = "established", MatchField.DESTINATION, MatchField.WAY_OUT


_ANY_IPS = frozenset(ANY_IP.values())
_TRACKED = (
    MatchField.STATE,
    MatchField.TRANSLATED,
    MatchField.DIALLED_ADDRESS,
    MatchField.DIALLED_PORT,
)
_UNPRIVILEGED = 1024
# Flags in the TCP header.
_SYN, _ACK = 0x02, 0x10
_PROTOCOLS = {Protocol.TCP: "tcp", Protocol.UDP: "udp"}


def _any_of(results: Iterable[bool | None]) -> bool | None:
    found = set(results)
    return True if True in found else None if None in found else False


def _has_any(match: Match, packet: FirstPacket) -> bool | None:
    """Return whether a match's networks contain an unknown address; None if they may."""
    is_whole = match.versions.get(packet.frontend.family)
    return False if is_whole is None else is_whole or None


def _has_port(match: Match, port: int) -> bool | None:
    return match.has(port) if port else None


def _dialled_address(match: Match, packet: FirstPacket) -> bool | None:
    is_other = packet.is_forwarded and not packet.is_to_client
    if is_other or packet.frontend.ip in _ANY_IPS:
        return _has_any(match, packet)
    return match.has(number_of_ip(packet.frontend.ip))


def _destination(match: Match, packet: FirstPacket) -> bool | None:
    if packet.is_to_client and not packet.is_own:
        return _client(match, packet, packet.way_out)
    # Treat the destination as unknown: it is one of this node's addresses, depending on the
    # interface.
    if packet.port or packet.is_answer or packet.frontend.ip in _ANY_IPS:
        return _has_any(match, packet)
    return match.has(number_of_ip(packet.frontend.ip))


def _source(match: Match, packet: FirstPacket) -> bool | None:
    if packet.is_to_client and packet.port:
        return _has_any(match, packet)
    if packet.is_answer and packet.frontend.ip not in _ANY_IPS:
        return match.has(number_of_ip(packet.frontend.ip))
    return _client(match, packet, packet.link)


def _client(match: Match, packet: FirstPacket, link: PodLink | None) -> bool | None:
    """Return whether a match's networks contain all clients behind a link; None if unknown."""
    family = packet.frontend.family
    if packet.is_other:
        return match.versions.get(family, False)
    pods = [ends_of(one) for one in link.networks if one.version == family] if link else []
    if not pods:
        return None
    if not any(first <= b and a <= last for a, b in pods for first, last in match.ends):
        return False
    # The result is unknown (None) unless the networks contain all addresses of the pods: they may
    # contain some.
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
    is_here = not packet.is_forwarded and is_local(packet.frontend.ip)
    is_loopback = packet.is_own if packet.is_to_client else is_here
    return _by_link(match, packet.way_out, is_loopback=is_loopback)


def _destination_port(match: Match, packet: FirstPacket) -> bool | None:
    if packet.is_answer:
        return None if any(last >= _UNPRIVILEGED for _, last in match.ends) else False
    return _has_port(match, packet.port or packet.frontend.port)


def _source_port(match: Match, packet: FirstPacket) -> bool | None:
    # The result is unknown (None) for a client's packet, because a client may use any source port.
    return _has_port(match, packet.port or packet.frontend.port) if packet.is_answer else None


def _is_translated(packet: FirstPacket) -> bool:
    return bool(packet.port) or packet.is_forwarded


def _state(match: Match, packet: FirstPacket) -> bool:
    state = "established" if packet.is_answer else "new"
    return state in match.values or (_is_translated(packet) and "dnat" in match.values)


def _to_this_node(_match: Match, packet: FirstPacket) -> bool:
    if packet.is_forwarded or packet.is_to_client:
        return packet.is_own
    return bool(packet.port) or packet.is_answer or is_local(packet.frontend.ip)


def _flags(match: Match, packet: FirstPacket) -> bool:
    if packet.frontend.protocol is not Protocol.TCP:
        # A UDP packet has no flags, so it meets only inverted conditions on them.
        return match.is_inverted
    flags = _SYN | _ACK if packet.is_answer else _SYN
    return all(flags & one.mask == one.value for one in match.bits)


# Cost: a look-up in a table, because each rule is checked for thousands of frontends.
_TESTS: Mapping[MatchField, Callable[[Match, FirstPacket], bool | None]] = {
    MatchField.DIALLED_ADDRESS: _dialled_address,
    MatchField.DIALLED_PORT: lambda match, packet: (
        None
        if packet.is_forwarded and not packet.is_to_client
        else _has_port(match, packet.frontend.port)
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
    MatchField.TCP_FLAGS: _flags,
    MatchField.DRAWN: lambda _match, packet: packet.is_drawn,
    MatchField.LIMIT: lambda _match, packet: packet.is_limited,
    # The result is unknown (None), because it depends on the listener's socket. Answers to this
    # node's own dials arrive at sockets that aren't transparent.
    MatchField.TRANSPARENT_SOCKET: lambda _match, packet: False if packet.is_answer else None,
}


@functools.lru_cache(maxsize=1000)
def number_of_ip(ip: str) -> int:
    """Return an address as a number, as :func:`.matches.number_of` does."""
    # Cost: this takes a tenth of the time of ipaddress, and there may be thousands of frontends.
    packed = pack_ip(ip)
    return int.from_bytes(packed) | (len(packed) > 4) << 128
