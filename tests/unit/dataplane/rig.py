"""A test rig: one data plane, with Services, endpoints and clients on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import logging
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from typing import Protocol as Interface

import pytest

from tests.port_keys import port_key
from userspace_proxy.dataplane import EndpointGroup, Tuning
from userspace_proxy.dataplane.connection_log import LOGGER
from userspace_proxy.dataplane.descriptors import DESCRIPTORS
from userspace_proxy.dataplane.relay import Direction
from userspace_proxy.dataplane.tcp import TcpConnection
from userspace_proxy.model import Protocol, SocketAddress
from userspace_proxy.model.serving import Serving
from userspace_proxy.plane import Answer, Group, Listener, Plane, Wanted

from .peers import Peer, RefusingEndpoint, SilentEndpoint, TcpEndpoint, UdpPeer, dial
from .waiting import until

SIDES = pytest.mark.parametrize("first", ["client", "endpoint"])
"""The side of a connection that acts first."""


class Closeable(Interface):
    def close(self) -> None: ...


C = TypeVar("C", bound=Closeable)


class Clock:
    """A clock that the test advances."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Service:
    """One group and its listener."""

    rig: Rig
    served: Group
    """The group in the plane."""
    group: Any
    """The worker's group, whose counters tests read before the next report resets them."""
    listener: Listener
    wanted: dict[Any, Wanted]

    @property
    def address(self) -> SocketAddress:
        return self.listener.address

    @property
    def carrier(self) -> Any:
        """The worker's side of the listener."""
        return self.rig.link._worker._listeners[self.listener.number]

    def close(self) -> None:
        """Close the group with its listener."""
        self.rig.plane.close_group(self.served)


def raise_error(answer: Answer) -> None:
    """Raise an answer's first error, if any: a listener isn't open, or resets its clients."""
    for error in answer.errors.values():
        assert error is not None, "an address was given"
        raise error


class Rig:
    """A plane with its worker in this loop, and the objects to close at the end.

    Args:
        tuning: The tuning of the data plane.
        clock: Monotonic seconds.
        loop: The loop whose timers are used; None for the running loop.
        plane: A plane to use; None for a new one in this loop.
    """

    def __init__(
        self,
        tuning: Tuning | None = None,
        clock: Callable[[], float] = time.monotonic,
        loop: asyncio.AbstractEventLoop | None = None,
        plane: Plane | None = None,
    ) -> None:
        loop = loop or asyncio.get_running_loop()
        self.bugs: list[str] = []
        loop.set_exception_handler(lambda _loop, context: self.bugs.append(repr(context)))
        self.plane = plane or Plane(loop, None, tuning, clock=clock)
        self.link: Any = self.plane._local
        """The link to the worker if the worker runs in this loop."""
        if self.link is not None:
            self.dataplane = self.link.dataplane
            self.engine = self.dataplane.engine
            self.connections = self.dataplane.connections
            self.flows = self.dataplane.flows.table
        self._kept: list[Closeable] = []

    @property
    def flow(self) -> Any:
        """The only UDP flow."""
        return self.flows.first_to_go()

    def settle(self) -> None:
        """Update the counters as a report does before it reads and resets them."""
        for _ in self.dataplane.settle():
            pass

    def close(self) -> None:
        """Close the data plane, and clients and endpoints."""
        self.plane.close()
        self.close_kept()

    def close_kept(self) -> None:
        """Close clients and endpoints."""
        for closeable in self._kept:
            closeable.close()
        self._kept.clear()

    def keep(self, closeable: C) -> C:
        """Close an object at the end of the rig; return the object."""
        self._kept.append(closeable)
        return closeable

    def service(
        self,
        *endpoints: SocketAddress,
        protocol: Protocol = Protocol.TCP,
        at: str | SocketAddress = "127.0.0.1",
        affinity_timeout_s: int | None = None,
        **others: Any,
    ) -> Service:
        """Return a Service with these endpoints; ``others`` are fields of the :class:`Serving`."""
        serving = Serving(endpoints, affinity_timeout_s, **others)
        address = SocketAddress(at, 0) if isinstance(at, str) else at
        wanted: dict[Any, Wanted] = {object(): Wanted(protocol, (address,))}
        group = self.plane.open_group(port_key("shop/web:http"))
        answer = self.plane.serve(group, serving, wanted)
        raise_error(answer)
        (listener,) = answer.listeners.values()
        return Service(self, group, self.group_of(group), listener, wanted)

    def served(self) -> tuple[TcpEndpoint, Service]:
        """Return an endpoint, and the Service that it serves."""
        pod = self.endpoint()
        return pod, self.service(pod.address)

    def udp_served(self) -> tuple[UdpPeer, Service, UdpPeer]:
        """Return an endpoint, the Service that it serves over UDP, and a client."""
        pod = self.udp_peer()
        service = self.udp_service(pod.address)
        return pod, service, self.udp_client(service)

    def group_of(self, group: Group) -> Any:
        return self.link._worker._groups[group.number]

    def udp_service(
        self,
        *endpoints: SocketAddress,
        **others: Any,
    ) -> Service:
        """Return a Service with these endpoints over UDP."""
        return self.service(*endpoints, protocol=Protocol.UDP, **others)

    def update(self, service: Service, *endpoints: SocketAddress, **others: Any) -> None:
        """Change a Service's endpoints, and other fields of its :class:`Serving`."""
        raise_error(self.plane.serve(service.served, Serving(endpoints, **others), service.wanted))

    def endpoint(self, ip: str = "127.0.0.1", port: int = 0) -> TcpEndpoint:
        return self.keep(TcpEndpoint(ip, port))

    def silent(self) -> SocketAddress:
        """Return the address of an endpoint that drops every SYN."""
        return self.keep(SilentEndpoint()).address

    def refusing(self, ip: str = "127.0.0.1") -> SocketAddress:
        """Return the address of an endpoint that answers every SYN with a RST."""
        return self.keep(RefusingEndpoint(socket.SOCK_STREAM, ip)).address

    def refusing_udp(self) -> SocketAddress:
        """Return the address of an endpoint that answers with port unreachable."""
        return self.keep(RefusingEndpoint(socket.SOCK_DGRAM)).address

    async def client(
        self, service: Service, *, source: str | None = None, receive_bytes: int = 0
    ) -> Peer:
        """Return a client that has connected to a Service."""
        return self.keep(await dial(service.address, source=source, receive_bytes=receive_bytes))

    async def resets_a_client(self, service: Service) -> bool:
        """Return whether a new connection is accepted and ends with a RST."""
        try:
            client = await self.client(service)
        except ConnectionResetError:
            return True
        return await client.was_reset()

    async def pair(self, service: Service, endpoint: TcpEndpoint) -> tuple[Peer, Peer]:
        """Return both ends of a new connection through the data plane: client and endpoint."""
        client = await self.client(service)
        return client, await endpoint.accept()

    async def joined(self, service: Service, endpoint: TcpEndpoint) -> tuple[Peer, Peer]:
        """Return both ends of a new connection once the data plane has joined them."""
        ends = await self.pair(service, endpoint)
        await until(lambda: all(c.up for c in self.connections.open), "the dial is answered")
        return ends

    async def both_ends(self, first: str = "client") -> tuple[Peer, Peer]:
        """Return both ends of a connection, first the ``first`` one (client or endpoint)."""
        pod = self.endpoint()
        client, server = await self.joined(self.service(pod.address), pod)
        return (client, server) if first == "client" else (server, client)

    def _directions(self) -> list[Direction]:
        return [
            direction
            for connection in self.connections.open
            for direction in (connection.up, connection.down)
        ]

    def pending(self) -> list[int]:
        """Return how many bytes wait in each direction."""
        return [direction.waiting_bytes for direction in self._directions()]

    def bytes_moved(self) -> list[int]:
        """Return how many bytes each direction has moved."""
        return [direction.bytes_moved for direction in self._directions()]

    async def begun(self, group: EndpointGroup) -> tuple[TcpConnection, Peer]:
        """Return a connection that hasn't dialled yet, and the client's socket."""
        client, accepted = await self.pair_without_proxy(self.endpoint())
        self.engine.descriptors.take(DESCRIPTORS)
        address = SocketAddress("127.0.0.1", 4711)
        accepted_fd = self.engine.reactor.calls.adopt(accepted.detached())
        connection = TcpConnection(self.connections, group, accepted_fd, address)
        self.connections.open[connection] = None
        return connection, client

    async def pair_without_proxy(self, endpoint: TcpEndpoint) -> tuple[Peer, Peer]:
        """Return both ends of a direct connection to an endpoint: client and endpoint."""
        return self.keep(await dial(endpoint.address)), await endpoint.accept()

    def udp_peer(self, ip: str = "127.0.0.1", port: int = 0) -> UdpPeer:
        return self.keep(UdpPeer(ip, port))

    def udp_client(self, service: Service, ip: str = "127.0.0.1") -> UdpPeer:
        """Return a client whose socket is connected to a Service."""
        return self.keep(UdpPeer(ip, to=service.address))


# Loopback's broadcast address: connect() itself fails, so no packet leaves.
UNREACHABLE = SocketAddress("127.255.255.255", 80)


def open_sockets() -> int:
    """Return how many sockets and epoll instances this process has open."""
    # Otherwise garbage of earlier tests would be collected during the count.
    gc.collect()
    # Exclude the current objects, such as caches of earlier tests, from later collections.
    gc.freeze()
    count = 0
    for fd in Path("/proc/self/fd").iterdir():
        # The descriptor of this listing is closed already.
        with contextlib.suppress(FileNotFoundError):
            count += str(fd.readlink()).startswith(("socket:", "anon_inode:[eventpoll]"))
    return count


def out_of_watches(*_args: object) -> int:
    """Fail as epoll_ctl() does at the kernel's limit of watches (ENOSPC)."""
    return -errno.ENOSPC


def connection_lines(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """Return the lines of the connection log."""
    return [record for record in caplog.records if record.name == LOGGER]
