"""Resolves the names of one proxy's Services for this process, for aiohttp, and by DNS."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ...cluster import Snapshot
from ...lookup.dns_messages import Responder
from ...lookup.dns_server import DnsServer
from ...model import Frontend, Protocol, SocketAddress
from ...names import FoundName, NameIndex, ServiceNames, find_name, search_list
from ...steering import Bind
from ..rounds.changes import Progress
from ..rounds.component import Component, OwnAddresses
from ..rounds.listen_addresses import ListenerIndex
from ..rounds.options import Options
from ..rounds.tasks import Supervisor


class _NamesOfSnapshot(NamedTuple):
    """The names of one snapshot."""

    snapshot: Snapshot
    plain: ServiceNames
    reached: ServiceNames


class ProxyNames:
    """The names of one proxy's Services; any thread may use the object.

    Args:
        progress: The progress of rounds, whose snapshots contain the Services.
        listeners: The listeners; with ``Bind.LOOPBACK``, their addresses replace cluster IPs.
        options: The options, with the cluster's domain.
    """

    def __init__(
        self, progress: Progress, listeners: ListenerIndex, bind: Bind, options: Options
    ) -> None:
        self._progress = progress
        self._listeners = listeners if bind is Bind.LOOPBACK else None
        self._domain = options.cluster_domain
        self._index = NameIndex()
        self._last: _NamesOfSnapshot | None = None

    def dialled_address(self, frontend: Frontend) -> SocketAddress:
        """Return the address to dial for a frontend: its listener's on loopback, else its own."""
        listener = self._listeners.get(frontend) if self._listeners is not None else None
        return frontend.address if listener is None else listener.address

    def current(self) -> ServiceNames | None:
        """Return the names of the Services in the rounds' snapshot; None without a snapshot."""
        made = self._make()
        return None if made is None else made.plain

    def as_reached(self) -> ServiceNames | None:
        """Return the names of :meth:`current` with the addresses and ports to dial, or None."""
        made = self._make()
        return None if made is None else made.reached

    def none(self) -> ServiceNames:
        return ServiceNames(Snapshot({}), self._domain)

    def _make(self) -> _NamesOfSnapshot | None:
        snapshot, last = self._progress.taken, self._last
        if snapshot is None:
            return None
        if last is None or last.snapshot is not snapshot:
            plain = reached = ServiceNames(snapshot, self._domain, None, self._index)
            if self._listeners is not None:
                reached = ServiceNames(snapshot, self._domain, self.dialled_address, self._index)
            last = self._last = _NamesOfSnapshot(snapshot, plain, reached)
        return last

    def search(self, namespace: str) -> NamesInNamespace:
        """Return the names for programs in a namespace, including short names."""
        return NamesInNamespace(self, search_list(namespace, self._domain))


class NamesInNamespace:
    """The names for a program with a search list of domains; any thread may use the object."""

    def __init__(self, names: ProxyNames, search: Sequence[str]) -> None:
        self._names = names
        self._search = search

    def find(self, host: str) -> FoundName | None:
        """Look up a host name; None for a name outside the cluster's domain."""
        # Names below the domain aren't looked up elsewhere, even before Services are read.
        names = self._names.current() or self._names.none()
        return find_name(names, host, self._search)

    def reached(self, ip: str, port: int, *, is_udp: bool) -> tuple[str, int]:
        """Return the address to dial for an address and port of a Service."""
        protocol = Protocol.UDP if is_udp else Protocol.TCP
        return self._names.dialled_address(Frontend(ip, port, protocol))


class NamesByDns(Component):
    """The DNS server, if the options enable it; it records its address in ``own``."""

    def __init__(self, names: ProxyNames, options: Options, own: OwnAddresses) -> None:
        self._names = names
        self._options = options
        self._own = own
        self._server: DnsServer | None = None

    async def start(self, supervisor: Supervisor) -> None:
        """Open the DNS address, if one is configured.

        Raises:
            ListenError: The address isn't available.
        """
        options = self._options
        if options.dns is None:
            return
        respond = Responder(self._names.as_reached, options.dns_upstream).respond
        server = self._server = DnsServer(respond)
        self._own.dns = await server.open(SocketAddress(*options.dns))
        supervisor.start("dns", server.run)

    async def close(self) -> None:
        if self._server is not None:
            await self._server.close()
