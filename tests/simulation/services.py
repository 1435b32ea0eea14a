"""One Service port of a run: its group of endpoints, its listener, and its settings."""

from __future__ import annotations

import _socket
from typing import TYPE_CHECKING, Any

from tests.port_keys import port_key
from userspace_proxy.dataplane import EndpointGroup
from userspace_proxy.kernel.listening_sockets import IPV6_RECVPKTINFO, family_of, is_wildcard
from userspace_proxy.kernel.socket_options import IP_PKTINFO, set_ip_option
from userspace_proxy.model import Protocol, SocketAddress
from userspace_proxy.model.serving import Serving

from . import plan as plans
from .sockets import SimulatedSocket

if TYPE_CHECKING:
    from .world import World


class Service:
    """One Service port in a run."""

    def __init__(self, world: World, number: int, planned: plans.ServicePlan) -> None:
        self.world = world
        self.number = number
        self.planned = planned
        self.serving = planned.serving
        """Its current endpoints and policy."""
        self.has_left: dict[SocketAddress, None] = {}
        """Endpoints that were removed at some time: the total may include their counters."""
        self.label = f"shop/web-{planned.address[1]}:http"
        self.group = EndpointGroup(
            port_key(self.label),
            planned.serving,
            start=world.plan.node.index,
            processes=world.plan.node.processes,
            entries=world.dataplane.engine.entries,
        )
        self.answered: dict[SocketAddress, float] = {}
        """The time of each endpoint's last answer, in any worker."""
        self.changed_at = world.timeline.now
        self.accepts_for: Service = self
        """The Service port for which its listener accepts clients from now on."""
        self.closed_at = -1.0
        """The time at which the listener was last closed."""
        self.sock: SimulatedSocket | None = None
        self.listener: Any = None
        self.open()

    @property
    def is_udp(self) -> bool:
        return self.planned.protocol is Protocol.UDP

    @property
    def limit(self) -> int | None:
        """This worker's maximum number of connections to an endpoint; None for no limit."""
        return self.world.plan.node.share_of(self.group.serving.handling.max_connections)

    @property
    def places(self) -> int:
        """This worker's maximum number of waiting clients; 0 if they are refused."""
        return self.world.plan.node.places_of(self.group.serving.handling.waits)

    def is_fine(self, endpoint: SocketAddress) -> bool:
        """Return whether an endpoint answers, as far as this Service port can detect."""
        return self.world.health.is_fine(endpoint, self.answered.get(endpoint, 0.0))

    @property
    def is_steady(self) -> bool:
        """Whether all of its endpoints answer."""
        return all(map(self.is_fine, self.serving.all_endpoints))

    def open(self) -> None:
        """Open the socket and the listener unless they are already open."""
        if self.sock is not None:
            return
        is_tcp = self.planned.protocol is Protocol.TCP
        sock: Any
        with self.world.kernel.granted():
            family = family_of(self.planned.address[0])
            sock = self.world.kernel.socket(family, 1 if is_tcp else 2)
            sock.core.name = f"listener of {self.planned.address[0]}"
            # Set the same options as ``kernel.listening_sockets``.
            if is_tcp:
                sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_OOBINLINE, 1)
            elif is_wildcard(self.planned.address[0]):
                set_ip_option(sock, IP_PKTINFO, IPV6_RECVPKTINFO)
            sock.bind(self.planned.address)
            if is_tcp:
                sock.listen(16)
            self.listener = self.world.dataplane.open_listener(
                self.accepts_for.group,
                self.planned.protocol,
                sock,
                SocketAddress(*self.planned.address),
            )
        self.sock = sock

    def close(self) -> None:
        """Close the Service's listener, then its socket."""
        if self.sock is not None:
            self.closed_at = self.world.timeline.now
            self.world.dataplane.close_listener(self.listener)
            self.sock.close()
            self.sock = None

    def move_listener(self, other: Service) -> None:
        """Make the listener accept for another Service port; accepted clients don't move."""
        self.accepts_for = other
        if self.sock is not None:
            self.listener.hand_over(other.group)

    def update(self, serving: Serving) -> None:
        """Change the Service's endpoints and policy."""
        for endpoint in self.serving.all_endpoints:
            if endpoint not in serving.all_endpoints:
                self.has_left[endpoint] = None
        for promise in self.world.promises:
            promise.changing(self, serving)
        self.serving, self.changed_at = serving, self.world.timeline.now
        at = self.world.dataplane.engine.clock()
        left = self.group.update(serving, at)
        self.world.dataplane.connections.removals.updated(self.group, left)
