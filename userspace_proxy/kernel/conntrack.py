"""Removes conntrack entries that bypass this proxy's rules or point to an old proxy port.

The kernel evaluates rules only for the first packet of an entry; later packets follow the entry:

- UDP: a client that keeps its source port would reach the old port, or bypass the proxy, forever.
- TCP: a SYN that arrived before the rule existed bypasses the proxy, and so do its retransmissions
  and each new connection from that port, until two minutes after the last SYN. The same applies to
  a SYN that was sent to an endpoint that doesn't answer, or to a listener whose filter drops it.
  When an endpoint resets a connection before any FIN, as a killed endpoint does, the entry also
  captures new connections from that port for ten seconds: a SYN doesn't replace it
  (nf_conntrack_tcp_packet() in net/netfilter).

Rule 1: call this module after the rules are applied: entries created afterwards are correct.
Rule 2: a correct entry stays, so a client survives a restart of the proxy.
Rule 3: an established TCP connection also stays: it may work without the proxy, and once it is
closed, the kernel evaluates the rules again.
"""

from __future__ import annotations

import bisect
import contextlib
import errno
import socket
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Set
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

from ..model import Protocol, SocketAddress, contains
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
# With more filters, one listing of all entries is used, which is never slower. Measured with
# 200,000 entries: the kernel skips an entry in 0.4 µs per filter, and reading an entry takes 3.4
# µs.
FULL_LISTING_ABOVE = 8
# A port for a listing that should be empty: the port of RFC 1078, which no program uses.
_UNUSED_PORT = 1
_PORT_BYTES, _PORTS = 2, 1 << 16
_SILENT_MIN = 3
"""The number of unanswered connections that make an endpoint silent if it has answered none; the
kernel keeps TCP entries for two minutes both before an answer and in TIME_WAIT."""


class Range(NamedTuple):
    """The dialled ports; :attr:`Change.dialled` contains the first port."""

    last: int
    """The last port; 0 for a single port."""
    besides: Set[int] = frozenset()
    """Ports in the range that other rules translate."""


SINGLE = Range(0)


class Change(NamedTuple):
    """A change of a frontend's rule."""

    protocol: int
    """IPPROTO_TCP or IPPROTO_UDP."""
    dialled: SocketAddress
    """The address that clients dialled."""
    before: Collection[int]
    """The ports of this node to which the rule may have pointed; empty if they are unknown."""
    now: int | None
    """The new target port; None if this proxy no longer steers the frontend."""
    choices: Collection[tuple[Collection[tuple[str, int]], Collection[str] | None]] = ()
    """Endpoints to which the rule may also point, or, if the frontend is no longer steered, may
    have pointed. Each group has the networks of the clients that may use it; None for all clients.
    The first group that admits a client applies."""
    here: Set[bytes] = frozenset()
    """The packed addresses of this node; empty if they are unknown. An entry that points to the
    port on another address is stale."""
    range: Range = SINGLE
    """The dialled ports; an endpoint's port corresponds to the first dialled port."""
    is_replaced: bool = False
    """Whether the old port may now belong to another frontend or program."""


class Allowed:
    """The targets to which entries of one frontend may lead."""

    def __init__(self, change: Change) -> None:
        self._before, self._now, self._here = change.before, change.now, change.here
        self._first = change.dialled.port if change.range.last else 0
        self._choices = [
            ({pack_address(*one) for one in set(endpoints)}, networks)
            for endpoints, networks in change.choices
        ]

    def is_stale(self, entry: ConntrackEntry) -> bool:
        """Return whether an entry leads to no allowed target; if unsteered, to an old target."""
        if self._now is None:
            led_there = any(leads_to(entry, port) for port in self._before)
            at = self._answered_from(entry)
            return led_there or any(at in some for some, _ in self._choices)
        if leads_to(entry, self._now) and self._is_here(entry):
            return False
        return not self._is_chosen(entry)

    def _is_here(self, entry: ConntrackEntry) -> bool:
        return not self._here or entry.answered_from[:-_PORT_BYTES] in self._here

    def _is_chosen(self, entry: ConntrackEntry) -> bool:
        for endpoints, networks in self._choices:
            if networks is None or contains(networks, unpack_ip(entry.client)):
                return self._answered_from(entry) in endpoints
        return False

    def _answered_from(self, entry: ConntrackEntry) -> bytes:
        """Return an entry's endpoint; for a range, with the port to which the first port maps."""
        if not self._first:
            return entry.answered_from
        beyond = _port(entry.dialled) - self._first
        port = (_port(entry.answered_from) - beyond) % _PORTS
        return entry.answered_from[:-_PORT_BYTES] + port.to_bytes(_PORT_BYTES, "big")


class StaleEntries:
    """Finds and removes stale entries in the calling thread's network namespace; not thread-safe.

    The socket stays open once it has been used, so a process without a free descriptor can still
    remove entries.
    """

    def __init__(self) -> None:
        self._requests: Requests | None = None

    def check(self, version: int) -> None:
        """Raise a SteeringError if this process can't list entries."""
        wanted = EntryFilter(socket.IPPROTO_UDP, port=_UNUSED_PORT)
        with self._asking("list") as requests:
            list(list_entries(requests, version, wanted))

    def forget_changed(self, version: int, changes: Iterable[Change]) -> int:
        """Remove entries of frontends if old or missing rules have caused them.

        These are UDP associations of steered frontends that point neither to the port nor to an
        endpoint; associations of frontends that are no longer steered and whose old ports are
        known, if they point to an old port or endpoint (another proxy may steer the frontend now);
        and entries of unanswered SYNs and of reset connections that would be steered elsewhere now.
        The old port of a frontend that is no longer steered refuses its connections, so its TCP
        entries stay, unless another frontend or program may use that port now.

        Returns: The number of stale entries.

        Raises:
            SteeringError: The kernel doesn't list or remove entries.
        """
        udp: list[Change] = []
        tcp: list[Change] = []
        for change in changes:
            if change.protocol == socket.IPPROTO_TCP:
                if change.now is not None:
                    tcp.append(change)
                elif change.is_replaced:
                    # Ignore endpoints, because any other program may have sent a SYN to them.
                    tcp.append(change._replace(choices=()))
            elif change.now is not None or change.before:
                udp.append(change)
        associations, connections = ByDialled(udp), ByDialled(tcp)

        def is_stale_association(entry: ConntrackEntry) -> bool:
            allowed = associations.find(entry.dialled)
            return allowed is not None and allowed.is_stale(entry)

        def is_stale_connection(entry: ConntrackEntry) -> bool:
            allowed = connections.find(entry.dialled)
            return allowed is not None and not is_answered(entry) and allowed.is_stale(entry)

        # Include frontends that weren't steered until now: another proxy, or this one before they
        # were removed, may have sent their connections to an endpoint.
        unanswered = [EntryFilter(socket.IPPROTO_TCP, without=IPS_SEEN_REPLY)] if tcp else []
        # List entries of reset connections only of frontends that were steered before: such a
        # listing walks all entries, and these entries last only ten seconds.
        steered = [change for change in tcp if change.before]
        reset = [one._replace(are_reset=True) for one in _listings(socket.IPPROTO_TCP, steered)]
        associated = _listings(socket.IPPROTO_UDP, udp)
        return self._remove(version, associated, is_stale_association) + self._remove(
            version, [*unanswered, *reset], is_stale_connection
        )

    def close(self) -> None:
        """Close the socket; idempotent."""
        if self._requests is not None:
            self._requests.close()
            self._requests = None

    def _remove(
        self,
        version: int,
        listings: Collection[EntryFilter],
        is_stale: Callable[[ConntrackEntry], bool],
    ) -> int:
        """Remove the stale entries in these listings; return their number."""
        if not listings:
            return 0
        with self._asking("remove") as requests:
            # Use a set, because listings overlap if the kernel ignores the filter.
            stale = {
                remove_request(entry)
                for wanted in listings
                for entry in list_entries(requests, version, wanted)
                if is_stale(entry)
            }
            remove_entries(requests, stale)
        return len(stale)

    @contextlib.contextmanager
    def _asking(self, verb: str) -> Iterator[Requests]:
        with _explained(verb):
            self._requests = self._requests or Requests.open(NETLINK_NETFILTER)
            try:
                yield self._requests
            except BaseException:
                # An unfinished listing blocks its socket.
                self.close()
                raise


class ByDialled:
    """The allowed targets of entries, by the address and port that clients dialled."""

    def __init__(self, changes: Iterable[Change]) -> None:
        self._single: dict[bytes, Allowed] = {}
        self._ranges: dict[bytes, _Ranges] = {}
        for change in sorted(changes, key=lambda change: change.dialled.port):
            dialled = pack_address(*change.dialled)
            if change.range.last:
                self._ranges.setdefault(dialled[:-_PORT_BYTES], _Ranges()).append(change)
            else:
                self._single[dialled] = Allowed(change)

    def find(self, dialled: bytes) -> Allowed | None:
        allowed = self._single.get(dialled)
        if allowed is not None or not self._ranges:
            return allowed
        ranges = self._ranges.get(dialled[:-_PORT_BYTES])
        return None if ranges is None else ranges.find(_port(dialled))


class _Ranges:
    """The changed port ranges of one address; only unsteered ranges may overlap."""

    def __init__(self) -> None:
        self._firsts: list[int] = []
        self._lasts: list[int] = []
        """For each range, the highest last port of this range and the ranges before it."""
        self._ranges: list[tuple[Range, Allowed]] = []

    def append(self, change: Change) -> None:
        """Append a range that doesn't begin before the last range."""
        last = change.range.last
        self._firsts.append(change.dialled.port)
        self._lasts.append(max(last, self._lasts[-1]) if self._lasts else last)
        self._ranges.append((change.range, Allowed(change)))

    def find(self, port: int) -> Allowed | None:
        at = bisect.bisect_right(self._firsts, port)
        while at and self._lasts[at - 1] >= port:
            at -= 1
            (last, besides), allowed = self._ranges[at]
            if port <= last and port not in besides:
                return allowed
        return None


def _port(packed: bytes) -> int:
    return int.from_bytes(packed[-_PORT_BYTES:], "big")


def leads_to(association: ConntrackEntry, port: int) -> bool:
    """Return whether an entry's replies come from a port, whatever the address."""
    return association.answered_from[-_PORT_BYTES:] == port.to_bytes(_PORT_BYTES, "big")


def is_answered(connection: ConntrackEntry) -> bool:
    """Return whether a connection was answered, and wasn't reset before any FIN."""
    return bool(connection.status & IPS_SEEN_REPLY) and not connection.was_reset


Leg = tuple[bytes, bytes]
"""The dialled address, and the address from which replies come; both are packed."""


class Tracked(NamedTuple):
    """The number and the volume of one protocol's entries for each leg."""

    entries: Mapping[Leg, int]
    volumes: Mapping[Leg, Volume] | None
    """The total volume of each leg's entries; None if the kernel doesn't count bytes."""


def counts_bytes(setting: Path = Path("/proc/sys/net/netfilter/nf_conntrack_acct")) -> bool:
    """Return whether the kernel counts the bytes of new entries; False if that can't be read."""
    with contextlib.suppress(OSError):
        return setting.read_text().strip() == "1"
    return False


def count_by_endpoint(version: int, protocol: int) -> Tracked:
    """Count the entries of a protocol, and their bytes and packets if the kernel counts these.

    Raises:
        SteeringError: The kernel doesn't list entries.
    """
    with _requests() as requests:
        entries, volumes = Counter[Leg](), dict[Leg, Volume]()
        has_volumes = counts_bytes()
        for entry in list_entries(requests, version, EntryFilter(protocol)):
            leg = entry.dialled, entry.answered_from
            entries[leg] += 1
            if has_volumes:
                volumes[leg] = volumes.get(leg, NO_VOLUME).plus(entry.volume)
        return Tracked(entries, volumes if has_volumes else None)


class DialledBy(NamedTuple):
    """The tracked connections to a dialled address.

    Both mappings are keyed by a hash of the client's address and port. The value is the number of
    seconds until the kernel forgets a closed connection, or 0 while the connection is open.
    """

    answered: dict[int, int]
    """Connections of clients outside this node that have received an answer from an endpoint."""
    own: dict[int, int]
    """Connections of clients on this node, answered or not."""
    silent: frozenset[bytes] = frozenset()
    """The packed endpoints that have left several connections unanswered, and answered none.
    Empty for UDP, whose clients may expect no answer, unless another endpoint answers."""


def connections_at(
    version: int, protocol: int, endpoints: Mapping[SocketAddress, Set[bytes]], here: Set[bytes]
) -> dict[SocketAddress, DialledBy]:
    """Return the tracked connections to these dialled addresses; blocks.

    Connections to this node's addresses other than endpoints are omitted: they lead to the proxy.

    Args:
        endpoints: The packed endpoints of each dialled address, including endpoints on this node.
        here: The packed addresses of this node.

    Raises:
        SteeringError: The kernel doesn't list entries.
    """
    found = {pack_address(*dialled): (DialledBy({}, {}), to) for dialled, to in endpoints.items()}
    answering: defaultdict[bytes, set[bytes]] = defaultdict(set)
    asked: defaultdict[bytes, Counter[bytes]] = defaultdict(Counter)
    with _requests() as requests:
        # Filter only for one address: each listing walks the whole table, in 8 ms even if it is
        # empty.
        wanted = EntryFilter(protocol, *(next(iter(endpoints)) if len(endpoints) == 1 else ()))
        for entry in list_entries(requests, version, wanted):
            seen, leads_to = found.get(entry.dialled, (None, frozenset()))
            at = entry.answered_from
            if seen is not None and (at in leads_to or at[:-_PORT_BYTES] not in here):
                has_answer = entry.has_answered_client
                if has_answer:
                    answering[entry.dialled].add(at)
                else:
                    asked[entry.dialled][at] += 1
                if entry.client[:-_PORT_BYTES] in here:
                    seen.own[hash(entry.client)] = entry.forgotten_in_s
                elif has_answer:
                    seen.answered[hash(entry.client)] = entry.forgotten_in_s
    silent = {
        dialled: frozenset(at for at, count in of.items() if count >= _SILENT_MIN)
        - answering[dialled]
        for dialled, of in asked.items()
        if answering[dialled] or protocol == socket.IPPROTO_TCP
    }
    return {
        dialled: found[at][0]._replace(silent=silent.get(at, frozenset()))
        for dialled in endpoints
        for at in (pack_address(*dialled),)
    }


def list_entries(requests: Requests, version: int, wanted: EntryFilter) -> Iterator[ConntrackEntry]:
    """Yield the wanted entries, and others if the kernel ignores the filter; consume all of them.

    Raises:
        OSError: During the iteration: the kernel refused the listing, or doesn't answer.
    """
    for block in requests.blocks(list_request(version, wanted)):
        # Cost: reading the entries of a block takes nine times as long as this check.
        if not wanted.are_reset or may_have_reset(block):
            yield from read_entries(block, version, wanted.protocol)


def remove_entries(requests: Requests, removals: Iterable[bytes]) -> None:
    """Send requests that :func:`.remove_request` returned; entries that don't exist are ignored.

    Raises:
        OSError: The kernel refused to remove an existing entry; other entries may be gone.
    """
    for _, code in requests.change(removals):
        if code != errno.ENOENT:
            raise_refusal(code)


@contextlib.contextmanager
def _requests() -> Iterator[Requests]:
    with _explained("list"), Requests.open(NETLINK_NETFILTER) as requests:
        yield requests


def _explained(verb: str) -> AbstractContextManager[None]:
    return explained(f"{verb} conntrack entries", hint=_HINT)


def _listings(protocol: int, changes: Collection[Change]) -> list[EntryFilter]:
    dialled = [(one.dialled.ip, 0 if one.range.last else one.dialled.port) for one in changes]
    if len(dialled) <= FULL_LISTING_ABOVE:
        return [EntryFilter(protocol, ip, port) for ip, port in dialled]
    return [EntryFilter(protocol)]
