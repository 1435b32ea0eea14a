"""Decides after a failed dial from a client address whether the endpoint or this pair is at fault.

    dial as the client failed ──▶ endpoint ejected ──▶ dial as this node
                                                        │ fails too: it stays ejected
                                                        └ answered: it is taken back, and for
                                                          a minute this pair ejects nothing

One dial serves all requests that arrive while it is under way: those of several clients, and of
several Service ports that share the endpoint.

A network policy that denies one client an endpoint looks like a dead endpoint to a dial from that
client's address; it must not take the endpoint away from all other clients.

Rule 1: such a dial carries no byte: what is denied to the client stays denied.
"""

from __future__ import annotations

import _socket
import logging

from ..model import SocketAddress
from . import reactor as epoll
from .engine import Engine
from .group import EndpointGroup
from .pairs import MAX_PAIRS, Pairs
from .sockets import family_of
from .timeouts import Timeouts

_log = logging.getLogger("userspace_proxy.dataplane")

_MAX_UNDER_WAY = 64
_STREAM = _socket.SOCK_STREAM | _socket.SOCK_NONBLOCK


class Probes:
    """The dials of one data plane that only look.

    Args:
        engine: Its reactor is used.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._under_way: dict[SocketAddress, _Probe] = {}
        # Policies change seldom, and an endpoint that dies is noticed by its other clients.
        self._pairs = Pairs()
        self._deadlines = Timeouts[_Probe](
            engine.loop, engine.clock, engine.tuning.connect_timeout_s, lambda probe: probe.end()
        )

    def knows(self, client: str, endpoint: SocketAddress, now: float) -> bool:
        """Tell whether it is this client alone that an endpoint doesn't answer."""
        return self._pairs.knows(client, endpoint, now)

    def ask(self, group: EndpointGroup, client: str, endpoint: SocketAddress) -> None:
        """Dial an endpoint as this node, or wait with those who have asked already.

        Args:
            group: Takes the endpoint back if it answers.
            client: The one whose dial failed.
            endpoint: Where to.
        """
        probe = self._under_way.get(endpoint)
        if probe is not None:
            probe.add(group, client)
            return
        if len(self._under_way) >= _MAX_UNDER_WAY:
            return
        if not self._engine.descriptors.has_room(1):
            return
        try:
            sock = _socket.socket(family_of(endpoint.ip), _STREAM)
        except OSError:
            return
        probe = _Probe(self, endpoint, sock)
        probe.add(group, client)
        sock.connect_ex(endpoint)
        try:
            self._engine.reactor.register(sock, epoll.OUT, probe.on_events)
        except OSError:
            sock.close()
            return
        self._engine.descriptors.take(1)
        self._under_way[endpoint] = probe
        self._deadlines.start(probe, self._engine.reactor.now)

    def close(self) -> None:
        """End all of them."""
        for probe in list(self._under_way.values()):
            probe.end()
        self._deadlines.close()

    def ended(self, probe: _Probe, *, has_answer: bool) -> None:
        """Take the result of one; for the probe."""
        del self._under_way[probe.endpoint]
        self._deadlines.stop(probe)
        self._engine.reactor.close_socket(probe.sock)
        self._engine.descriptors.give(1)
        if not has_answer:
            return
        now = self._engine.reactor.clock()
        for client in probe.clients:
            self._pairs.note(client, probe.endpoint, now)
        for group, client in probe.groups.items():
            _log.info(
                "endpoint answers this node, but not this client",
                extra={"service": group.label, "client": client, "endpoint": str(probe.endpoint)},
            )
            group.answered(probe.endpoint)


class _Probe:
    """One of them, and all who wait for what comes of it."""

    def __init__(self, owner: Probes, endpoint: SocketAddress, sock: _socket.socket) -> None:
        self.owner = owner
        self.endpoint = endpoint
        self.sock = sock
        self.groups: dict[EndpointGroup, str] = {}
        """Those that have ejected the endpoint, each with the first of its clients that failed."""
        self.clients: dict[str, None] = {}
        """In the order in which they came; no more than pairs are kept."""

    def add(self, group: EndpointGroup, client: str) -> None:
        """Let another wait, too; idempotent."""
        self.groups.setdefault(group, client)
        if len(self.clients) < MAX_PAIRS:
            self.clients[client] = None

    def on_events(self, _events: int) -> None:
        number = self.sock.getsockopt(_socket.SOL_SOCKET, _socket.SO_ERROR)
        self.owner.ended(self, has_answer=number == 0)

    def end(self) -> None:
        """Give it up: there was no answer."""
        self.owner.ended(self, has_answer=False)
