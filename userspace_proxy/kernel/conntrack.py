"""Removes conntrack entries that bypass this proxy's rules or lead to an old proxy port.

The kernel evaluates rules only for the first packet of an entry; later packets follow the entry:

- UDP: a client that keeps its source port would use the old port, or bypass the proxy, forever.
- TCP: a SYN that arrived while there was no rule bypassed the proxy. Its retransmissions do too,
  and so does each new connection from that port, until two minutes after the last one.

Rule 1: call it after the rules are in force: entries created from then on are correct.
Rule 2: a correct entry stays, so a client survives a restart of the proxy.
Rule 3: so does an established TCP connection: it may work without the proxy, and after its end
the kernel evaluates the rules again.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import NamedTuple

from ..errors import SteeringError, shortage_hint
from .ctnetlink import (
    IPS_DST_NAT,
    IPS_SEEN_REPLY,
    Connection,
    Entry,
    Wanted,
    pack_address,
    remove_request,
)

_HINT = "modprobe nf_conntrack_netlink, grant NET_ADMIN, or run with --steering=none"
# Of 200,000 entries the kernel passes one by in 0.4 µs for each filter, and we read one in 3.4 µs
# (measured): beyond so many filters one listing of all is never more work.
FULL_LISTING_ABOVE = 8
# Only what was neither translated nor answered is listed: next to nothing.
_PASSED_BY = IPS_SEEN_REPLY | IPS_DST_NAT
# Asked for where only the answer's coming matters. Source: RFC 1078, which nobody uses.
_NOBODYS_PORT = 1


class Dialled(NamedTuple):
    """What a client dialled."""

    ip: str
    port: int


class Change(NamedTuple):
    """What became of a frontend's rule."""

    protocol: int
    """IPPROTO_TCP or IPPROTO_UDP."""
    dialled: Dialled
    before: int | None
    """The port of ours that it led to."""
    now: int | None
    """The port that it leads to; None where it is no longer steered by us."""


def forget_changed(version: int, changes: Iterable[Change]) -> None:
    """Remove the entries that frontends got under other rules, or without any.

    Args:
        version: 4 or 6.
        changes: All that has changed in rules that are in force now.

    Raises:
        SteeringError: The kernel doesn't list or remove entries.
    """
    udp: dict[Dialled, int] = {}
    gone: dict[Dialled, int] = {}
    tcp: set[Dialled] = set()
    for protocol, dialled, before, now in changes:
        if protocol == socket.IPPROTO_TCP:
            if now is not None:
                tcp.add(dialled)
        elif now is not None:
            udp[dialled] = now
        elif before is not None:
            gone[dialled] = before
    forget_stale_udp(version, udp)
    forget_gone_udp(version, gone)
    forget_unsteered_tcp(version, tcp)


def forget_stale_udp(version: int, targets: Mapping[Dialled, int]) -> int:
    """Remove the UDP associations of these frontends that don't lead to their port.

    Args:
        version: 4 or 6.
        targets: The port that each leads to now.

    Returns:
        How many were there.

    Raises:
        SteeringError: The kernel doesn't list or remove associations.
    """
    ports = {pack_address(*dialled): port for dialled, port in targets.items()}
    return _remove(
        version,
        _udp_listings(targets),
        lambda entry: entry.dialled in ports and not leads_to(entry, ports[entry.dialled]),
    )


def forget_gone_udp(version: int, ports: Mapping[Dialled, int]) -> int:
    """Remove the UDP associations of frontends that are no longer steered by us.

    Those that lead elsewhere stay: another proxy on this node may steer the frontend by now.

    Args:
        version: 4 or 6.
        ports: The port of ours that each led to.

    Returns:
        How many were there.

    Raises:
        SteeringError: The kernel doesn't list or remove associations.
    """
    was = {pack_address(*dialled): port for dialled, port in ports.items()}
    return _remove(
        version,
        _udp_listings(ports),
        lambda entry: entry.dialled in was and leads_to(entry, was[entry.dialled]),
    )


def forget_unsteered_tcp(version: int, steered: Collection[Dialled]) -> int:
    """Remove what SYNs have left that came to these frontends while there was no rule.

    Args:
        version: 4 or 6.
        steered: Frontends whose rules are in force.

    Returns:
        How many were there.

    Raises:
        SteeringError: The kernel doesn't list or remove connections.
    """
    frontends = {pack_address(*dialled) for dialled in steered}
    listings = [Wanted(socket.IPPROTO_TCP, without=_PASSED_BY)] if frontends else []
    return _remove(
        version, listings, lambda entry: entry.dialled in frontends and has_passed_by(entry)
    )


def leads_to(association: Entry, port: int) -> bool:
    """Return whether an association leads to a port of ours."""
    return association.answered_from[-2:] == port.to_bytes(2, "big")


def has_passed_by(connection: Entry) -> bool:
    """Return whether a connection was never translated and nobody has answered it."""
    return not connection.status & _PASSED_BY


def check(version: int) -> None:
    """Make sure that entries can be listed here.

    Raises:
        SteeringError: With the kernel's answer.
    """
    try:
        with Connection() as connection:
            list(connection.entries(version, Wanted(socket.IPPROTO_UDP, port=_NOBODYS_PORT)))
    except OSError as exc:
        hint = shortage_hint(exc.errno) or _HINT
        raise SteeringError(f"cannot list conntrack entries: {exc}", hint=hint) from exc


def _udp_listings(frontends: Collection[Dialled]) -> list[Wanted]:
    if len(frontends) <= FULL_LISTING_ABOVE:
        return [Wanted(socket.IPPROTO_UDP, *dialled) for dialled in frontends]
    return [Wanted(socket.IPPROTO_UDP)]


def _remove(version: int, listings: Iterable[Wanted], is_stale: Callable[[Entry], bool]) -> int:
    """Remove those entries of some listings that are stale; return how many."""
    try:
        with Connection() as connection:
            # A set: listings overlap where the kernel doesn't filter as we asked.
            stale = {
                remove_request(entry)
                for wanted in listings
                for entry in connection.entries(version, wanted)
                if is_stale(entry)
            }
            connection.remove(stale)
    except OSError as exc:
        hint = shortage_hint(exc.errno) or _HINT
        raise SteeringError(f"cannot remove conntrack entries: {exc}", hint=hint) from exc
    return len(stale)
