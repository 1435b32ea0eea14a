"""Removes conntrack entries that bypass this proxy's rules or lead to an old proxy port.

The kernel evaluates rules only for the first packet of an entry; later packets follow the entry:

- UDP: a client that keeps its source port would use the old port, or bypass the proxy, forever.
- TCP: a SYN that arrived while there was no rule bypassed the proxy. Its retransmissions do too,
  and so does each new connection from that port, until two minutes after the last one. The same
  goes for a SYN that was led to an endpoint which doesn't answer, or to a listener whose filter
  drops it, and, for ten seconds, for each connection from the port of one that an endpoint has
  reset before any FIN, as one that is killed does: a SYN doesn't replace that entry
  (nf_conntrack_tcp_packet() in net/netfilter).

Rule 1: call it after the rules are in force: entries created from then on are correct.
Rule 2: a correct entry stays, so a client survives a restart of the proxy.
Rule 3: so does an established TCP connection: it may work without the proxy, and after its end
the kernel evaluates the rules again.
"""

from __future__ import annotations

import contextlib
import errno
import socket
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Set
from pathlib import Path
from typing import NamedTuple

from ..model import Protocol, contains
from .ctnetlink import (
    IPS_SEEN_REPLY,
    NO_VOLUME,
    ConntrackEntry,
    EntryFilter,
    Volume,
    list_request,
    may_have_reset,
    pack_address,
    read_entries,
    remove_request,
    unpack_ip,
)
from .netlink import Requests, explained
from .netlink.messages import raise_refusal
from .netlink.sockets import NETLINK_NETFILTER

PROTOCOL_NUMBERS = {Protocol.TCP: socket.IPPROTO_TCP, Protocol.UDP: socket.IPPROTO_UDP}

_HINT = "modprobe nf_conntrack_netlink, grant NET_ADMIN, or run with --steering=none"
# Of 200,000 entries the kernel skips one in 0.4 µs per filter, and reading one takes 3.4 µs
# (measured): above this many filters one listing of all entries is never more work.
FULL_LISTING_ABOVE = 8
# For a listing that is expected to be empty. Source: RFC 1078, which is not in use.
_UNUSED_PORT = 1
_PORT_BYTES = 2


class Dialled(NamedTuple):
    """The address and port that a client dialled."""

    ip: str
    port: int


class Change(NamedTuple):
    """A change of a frontend's rule."""

    protocol: int
    """IPPROTO_TCP or IPPROTO_UDP."""
    dialled: Dialled
    before: Collection[int]
    """The ports of this node that it may have led to; empty where none is known."""
    now: int | None
    """The port that it leads to; None where this proxy no longer steers it."""
    choices: Collection[tuple[Collection[tuple[str, int]], Collection[str] | None]] = ()
    """Endpoints that it may lead to as well, or where it isn't steered, led to, each with the
    networks of the clients that may use them; None: all. The first that has a client counts."""
    here: Set[bytes] = frozenset()
    """The packed addresses of this node: what leads to the port at another one leads nowhere.
    Empty where they aren't known."""


class Allowed:
    """Where the UDP associations of one frontend may lead."""

    def __init__(self, change: Change) -> None:
        self._before, self._now, self._here = change.before, change.now, change.here
        self._choices = [
            ({pack_address(*one) for one in set(endpoints)}, networks)
            for endpoints, networks in change.choices
        ]

    def is_stale(self, entry: ConntrackEntry) -> bool:
        """Return whether an association of this frontend leads elsewhere."""
        if self._now is None:
            led_there = any(leads_to(entry, port) for port in self._before)
            return led_there or any(entry.answered_from in some for some, _ in self._choices)
        if leads_to(entry, self._now) and self._is_here(entry):
            return False
        return not self._is_chosen(entry)

    def _is_here(self, entry: ConntrackEntry) -> bool:
        return not self._here or entry.answered_from[:-_PORT_BYTES] in self._here

    def _is_chosen(self, entry: ConntrackEntry) -> bool:
        for endpoints, networks in self._choices:
            if networks is None or contains(networks, unpack_ip(entry.client)):
                return entry.answered_from in endpoints
        return False


def forget_changed(version: int, changes: Iterable[Change]) -> int:
    """Remove the entries that frontends got under other rules, or without any.

    These are UDP associations of steered frontends that lead neither to their port nor to one of
    their endpoints; those of frontends that are no longer steered, if they lead to an old port or
    endpoint (another proxy on this node may steer the frontend now); and entries of SYNs that have
    no answer, and of connections that were reset, if they lead elsewhere than a new one would.

    Returns:
        How many were found.

    Raises:
        SteeringError: The kernel doesn't list or remove entries.
    """
    udp: dict[Dialled, Change] = {}
    tcp: dict[Dialled, Change] = {}
    for change in changes:
        if change.protocol == socket.IPPROTO_TCP:
            if change.now is not None:
                tcp[change.dialled] = change
        elif change.now is not None or change.before:
            udp[change.dialled] = change
    associations = {pack_address(*dialled): Allowed(change) for dialled, change in udp.items()}
    connections = {pack_address(*dialled): Allowed(change) for dialled, change in tcp.items()}

    def is_stale_association(entry: ConntrackEntry) -> bool:
        allowed = associations.get(entry.dialled)
        return allowed is not None and allowed.is_stale(entry)

    def is_stale_connection(entry: ConntrackEntry) -> bool:
        allowed = connections.get(entry.dialled)
        return allowed is not None and not is_answered(entry) and allowed.is_stale(entry)

    # Also of frontends that were not steered: this proxy may have led them to an endpoint before
    # they left, or another one until now.
    unanswered = [EntryFilter(socket.IPPROTO_TCP, without=IPS_SEEN_REPLY)] if tcp else []
    # All would be listed for each frontend, and these entries last ten seconds.
    steered = [dialled for dialled, change in tcp.items() if change.before]
    reset = [one._replace(are_reset=True) for one in _listings(socket.IPPROTO_TCP, steered)]
    associated = _listings(socket.IPPROTO_UDP, udp)
    return _remove(version, associated, is_stale_association) + _remove(
        version, [*unanswered, *reset], is_stale_connection
    )


def leads_to(association: ConntrackEntry, port: int) -> bool:
    """Return whether an association leads to a port of this node."""
    return association.answered_from[-_PORT_BYTES:] == port.to_bytes(_PORT_BYTES, "big")


def is_answered(connection: ConntrackEntry) -> bool:
    """Return whether anything has come back from where a connection leads, and no reset."""
    return bool(connection.status & IPS_SEEN_REPLY) and not connection.was_reset


def check(version: int) -> None:
    """Raise a SteeringError if entries can't be listed here."""
    wanted = EntryFilter(socket.IPPROTO_UDP, port=_UNUSED_PORT)
    with (
        explained("list conntrack entries", hint=_HINT),
        Requests.open(NETLINK_NETFILTER) as requests,
    ):
        list(list_entries(requests, version, wanted))


Leg = tuple[bytes, bytes]
"""What was dialled, and where replies come from."""


class Tracked(NamedTuple):
    """The entries of one protocol, by their legs."""

    entries: Mapping[Leg, int]
    volumes: Mapping[Leg, Volume] | None
    """Sums of these entries; None where the kernel doesn't count bytes."""


def counts_bytes(setting: Path = Path("/proc/sys/net/netfilter/nf_conntrack_acct")) -> bool:
    """Return whether connection tracking counts the bytes of new entries."""
    with contextlib.suppress(OSError):
        return setting.read_text().strip() == "1"
    return False


def count_by_endpoint(version: int, protocol: int) -> Tracked:
    """Return the entries of a protocol, with bytes and packets where the kernel counts them.

    Raises:
        SteeringError: The kernel doesn't list entries.
    """
    with (
        explained("list conntrack entries", hint=_HINT),
        Requests.open(NETLINK_NETFILTER) as requests,
    ):
        entries, volumes = Counter[Leg](), dict[Leg, Volume]()
        has_volumes = counts_bytes()
        for entry in list_entries(requests, version, EntryFilter(protocol)):
            leg = entry.dialled, entry.answered_from
            entries[leg] += 1
            if has_volumes:
                volumes[leg] = volumes.get(leg, NO_VOLUME).plus(entry.volume)
        return Tracked(entries, volumes if has_volumes else None)


class DialledBy(NamedTuple):
    """The connections that are tracked at one dialled address.

    By a hash of the client's address and port; each with the seconds until the kernel forgets one
    that has ended, 0 while it is open.
    """

    answered: dict[int, int]
    """Those whose client has got an answer of an endpoint."""
    own: dict[int, int]
    """Those of clients on this node, answered or not."""


def connections_at(
    version: int, protocol: int, endpoints: Mapping[Dialled, Set[bytes]], here: Set[bytes]
) -> dict[Dialled, DialledBy]:
    """Return the connections that are tracked at some dialled addresses; blocks.

    Those that lead to the proxy's own ports don't count.

    Args:
        endpoints: Where each address may lead, packed: one may be an address of this node.
        here: The packed addresses of this node.

    Raises:
        SteeringError: The kernel doesn't list entries.
    """
    found = {pack_address(*dialled): (DialledBy({}, {}), to) for dialled, to in endpoints.items()}
    with (
        explained("list conntrack entries", hint=_HINT),
        Requests.open(NETLINK_NETFILTER) as requests,
    ):
        # Walking an empty table of usual size takes 8 ms, whatever is wanted of it.
        wanted = EntryFilter(protocol, *(next(iter(endpoints)) if len(endpoints) == 1 else ()))
        for entry in list_entries(requests, version, wanted):
            seen, leads_to = found.get(entry.dialled, (None, frozenset()))
            at = entry.answered_from
            if seen is not None and (at in leads_to or at[:-_PORT_BYTES] not in here):
                if entry.client[:-_PORT_BYTES] in here:
                    seen.own[hash(entry.client)] = entry.forgotten_in_s
                elif entry.has_answered_client:
                    seen.answered[hash(entry.client)] = entry.forgotten_in_s
    return {dialled: found[pack_address(*dialled)][0] for dialled in endpoints}


def list_entries(requests: Requests, version: int, wanted: EntryFilter) -> Iterator[ConntrackEntry]:
    """Yield entries of one protocol, the wanted ones among them; to be read to its end."""
    for block in requests.blocks(list_request(version, wanted)):
        # Cost: reading the entries of a block takes nine times as long as this look.
        if not wanted.are_reset or may_have_reset(block):
            yield from read_entries(block, version, wanted.protocol)


def remove_entries(requests: Requests, removals: Iterable[bytes]) -> None:
    """Remove entries by :func:`.remove_request`; those that no longer exist are no error."""
    for _, code in requests.change(removals):
        if code != errno.ENOENT:
            raise_refusal(code)


def _listings(protocol: int, frontends: Collection[Dialled]) -> list[EntryFilter]:
    if len(frontends) <= FULL_LISTING_ABOVE:
        return [EntryFilter(protocol, *dialled) for dialled in frontends]
    return [EntryFilter(protocol)]


def _remove(
    version: int, listings: Collection[EntryFilter], is_stale: Callable[[ConntrackEntry], bool]
) -> int:
    """Remove the stale entries of some listings; return how many."""
    if not listings:
        return 0
    with (
        explained("remove conntrack entries", hint=_HINT),
        Requests.open(NETLINK_NETFILTER) as requests,
    ):
        # A set: listings overlap where the kernel ignores the filter.
        stale = {
            remove_request(entry)
            for wanted in listings
            for entry in list_entries(requests, version, wanted)
            if is_stale(entry)
        }
        remove_entries(requests, stale)
    return len(stale)
