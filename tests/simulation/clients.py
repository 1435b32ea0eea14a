"""Records each client's connection from accept to close.

    accepts ─▶ chosen ─▶ dialled ─┬─▶ joined ─▶ ended
               ▲                  │
               └── dial failed ───┘

The kernel reports accepts and dials. System calls don't show for which client a dial is made, or
which dial is used. Two methods of the product are watched to find out.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from userspace_proxy.dataplane.tcp import TcpConnection
from userspace_proxy.dataplane.tcp_accounts import TcpAccounts
from userspace_proxy.model import SocketAddress
from userspace_proxy.model.addresses import port_of

from .kernel import Watcher
from .network import Address
from .sockets import SimulatedSocket, core_of
from .streams import CONNECTING, OPEN, Stream

if TYPE_CHECKING:
    from .actors import Party
    from .services import Service
    from .world import World

# The lowest source ports of clients, and of the clients named in PROXY headers.
CLIENTS_FROM, ANNOUNCED_FROM = 20000, 5000


@dataclass(eq=False)
class Dial:
    """One dial of the node on behalf of a client."""

    endpoint: SocketAddress
    at: float
    core: Stream

    @property
    def is_under_way(self) -> bool:
        return self.core.state in (CONNECTING, OPEN) and not self.core.is_orphan


@dataclass(eq=False)
class Client:
    """One connection that the node has accepted."""

    number: int
    party: Party
    service: Service
    """The Service that accepted the client."""
    left: Stream
    """The node's end of the connection to the client."""
    accepted_at: float
    dials: list[Dial] = field(default_factory=list)
    chosen_at: float = 0.0
    """The time at which an endpoint was last picked for the client."""
    endpoint: SocketAddress | None = None
    """The endpoint that has answered; None without an answer."""
    other: Party | None = None
    right: Stream | None = None
    """The node's end of the connection to the endpoint."""
    joined_at: float = 0.0
    cause: str = ""
    """The reason why it was closed, from its line of the connection log; empty while open."""

    @property
    def ip(self) -> str:
        """The address by which the client is served: its own, or the one in its PROXY header."""
        return self.party.served_as.ip

    @property
    def is_announced(self) -> bool:
        """Whether the client must send a PROXY header first."""
        return self.party.served_as != self.party.own

    @property
    def is_open(self) -> bool:
        return not self.cause

    @property
    def is_dialled(self) -> bool:
        """Whether a dial for the client is in progress, or was just answered."""
        return bool(self.dials) and self.dials[-1].is_under_way

    @property
    def is_joined(self) -> bool:
        return self.endpoint is not None

    @property
    def at(self) -> SocketAddress | None:
        """The endpoint whose count includes the client: its own or the dialled one, or None."""
        if self.endpoint is None and self.is_dialled:
            return self.dials[-1].endpoint
        return self.endpoint

    @property
    def moved_at(self) -> float:
        """The time at which bytes were last written to either side."""
        return max(self.left.moved_at, self.right.moved_at if self.right else 0.0)

    @property
    def ends_seen(self) -> bool:
        """Whether a side's FIN or RST has arrived, or was passed on."""
        return any(
            each is not None and (each.fin_at, each.failed_at, each.shut_out_at) != (None,) * 3
            for each in (self.left, self.right)
        )


class Clients(Watcher):
    """The clients of one run."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.all: dict[int, Client] = {}
        """By client number."""
        self._dialled_for: Client | None = None

    @property
    def open(self) -> list[Client]:
        return [client for client in self.all.values() if client.is_open]

    def of(self, stream: Stream) -> Client | None:
        """Return the client whose connection ends on the node in this stream."""
        return None if stream.remote is None else self.all.get(stream.remote[1] - CLIENTS_FROM)

    def accepts(self, sock: SimulatedSocket, client: Stream) -> None:
        """Record a client, and the Service port that accepted it."""
        world = self._world
        assert client.remote is not None, "the stream has no client"
        party = world.clients[client.remote[1] - CLIENTS_FROM]
        service = next(s for s in world.services if s.sock is sock).accepts_for
        party.service = service.number
        one = Client(party.number, party, service, client, world.timeline.now)
        self.all[party.number] = one
        for promise in world.promises:
            promise.accepted(one)

    def connects(self, sock: SimulatedSocket, address: Address) -> None:
        client = self._dialled_for
        if client is not None and isinstance(sock.core, Stream):
            dial = Dial(SocketAddress(*address), self._world.timeline.now, sock.core)
            client.dials.append(dial)
            for promise in self._world.promises:
                promise.dialled(client, dial)

    def ended(self, line: dict[str, Any]) -> None:
        """Record the end of a client's connection from its line in the connection log."""
        world = self._world
        if line["kind"] == "flow":
            world.network.note(f"flow of {line['client']}: {line['cause']}")
            return
        port = int(port_of(line["client"]))
        number = port - (CLIENTS_FROM if port >= CLIENTS_FROM else ANNOUNCED_FROM)
        client = self.all[number]
        world.network.note(f"client {number}: {line['cause']}, by {line['ended_by']}")
        if client.cause:
            world.violate(f"client {number}'s connection ended twice")
        client.cause = line["cause"]
        for promise in world.promises:
            promise.ended(client)

    def _join(self, connection: Any, fd: int) -> None:
        world, client = self._world, self.of(core_of(connection.client))
        core = world.kernel.file_of(fd)
        other = world.accepted.get(core.peer)
        if client is None or client.is_joined or other is None or other.other:
            world.violate(f"{core.name} was joined to another's connection")
            return
        assert other.stream.local is not None, "the endpoint has no address"
        client.endpoint, client.right = SocketAddress(*other.stream.local), core
        client.other, client.joined_at = other, world.timeline.now
        party, service = client.party, client.service
        party.other, other.other, party.header = other, party, b""
        service.answered[client.endpoint] = client.joined_at
        version = service.serving.handling.proxy_protocol
        party.joined = version, service.label, party.served_as, party.dialled
        for promise in world.promises:
            promise.joined(client)

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Record, within the block, for which client a dial is made and which dial is used."""
        connect, answered = TcpConnection._connect, TcpAccounts.answered

        def connects(connection: Any, endpoint: SocketAddress) -> Any:
            client = self._dialled_for = self.of(core_of(connection.client))
            if client is not None:
                for promise in self._world.promises:
                    promise.chosen(client, endpoint)
                client.chosen_at = self._world.timeline.now
            try:
                return connect(connection, endpoint)
            finally:
                self._dialled_for = None

        def answers(accounts: Any, connection: Any) -> None:
            self._join(connection, connection.endpoint_fd)
            answered(accounts, connection)

        changed: tuple[tuple[Any, str, Any], ...] = (
            (TcpConnection, "_connect", connects),
            (TcpAccounts, "answered", answers),
        )
        before = [getattr(owner, name) for owner, name, _ in changed]
        for owner, name, new in changed:
            setattr(owner, name, new)
        try:
            yield
        finally:
            for (owner, name, _), old in zip(changed, before, strict=True):
                setattr(owner, name, old)
