"""Decides after a failed dial from a client address whether the endpoint or this pair is at fault.

    dial from the client's address failed ──▶ endpoint ejected ──▶ dial from this node's address
                                                  │ fails, too: it stays ejected
                                                  └ answered: the ejection ends, and for a minute
                                                    failures of this pair eject nothing

A network policy that denies one client an endpoint looks like a dead endpoint to a dial from that
client's address; it must not take the endpoint away from all other clients.

Rule 1: such a dial carries no byte of the client's: what is denied to it stays denied. A PROXY
header, where the Service asks for one, names no client.
Rule 2: one dial answers all requests that arrive while it is in progress: those of several clients,
and of several Service ports that share the endpoint.
"""

from __future__ import annotations

import _socket
import contextlib
import errno

from ..log_fields import FieldLogger
from ..model import SocketAddress
from . import reactor as epoll
from .endpoint_group import EndpointGroup
from .engine import Engine
from .pairs import MAX_PAIRS, Pairs
from .proxy_protocol import write_local_header
from .sockets import family_of
from .timeouts import Timeouts

_log = FieldLogger("userspace_proxy.dataplane")

_MAX_UNDER_WAY = 64
_STREAM = _socket.SOCK_STREAM | _socket.SOCK_NONBLOCK


class Probes:
    """The probes of one data plane, on its engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._under_way: dict[SocketAddress, _Probe] = {}
        # For a minute: policies change rarely, and if the endpoint dies, other clients' dials fail.
        self._pairs = Pairs()
        self._deadlines = Timeouts[_Probe](
            engine.loop, engine.clock, engine.tuning.connect_timeout_s, lambda probe: probe.end()
        )

    def is_denied(self, client: str, endpoint: SocketAddress, now: float) -> bool:
        """Return whether a probe has shown that an endpoint doesn't answer this client only."""
        return self._pairs.has(client, endpoint, now)

    def request(self, group: EndpointGroup, client: str, endpoint: SocketAddress) -> None:
        """Dial an endpoint from this node's address; an answer ends its ejection from the group."""
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
        if sock.connect_ex(endpoint) not in (0, errno.EINPROGRESS):
            # This node has no route to it, or may not use one: no event would report that.
            sock.close()
            return
        try:
            self._engine.reactor.register(sock, epoll.OUT, probe.on_events)
        except OSError:
            sock.close()
            return
        self._engine.descriptors.take(1)
        self._under_way[endpoint] = probe
        self._deadlines.start(probe, self._engine.reactor.now)

    def close(self) -> None:
        """End all probes."""
        for probe in list(self._under_way.values()):
            probe.end()
        self._deadlines.close()

    def ended(self, probe: _Probe, *, has_answer: bool) -> None:
        """Take the result of a probe."""
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
                "%(service)s: endpoint %(endpoint)s answers this node, but not %(client)s",
                extra={"service": group.label, "client": client, "endpoint": str(probe.endpoint)},
            )
            group.answered(probe.endpoint, now)


class _Probe:
    """One dial, and the requests that wait for its result."""

    def __init__(self, owner: Probes, endpoint: SocketAddress, sock: _socket.socket) -> None:
        self.owner = owner
        self.endpoint = endpoint
        self.sock = sock
        self.groups: dict[EndpointGroup, str] = {}
        """Those that have ejected the endpoint, each with its first client whose dial failed."""
        self.clients: dict[str, None] = {}
        """In the order of their requests; at most as many as pairs are remembered."""

    def add(self, group: EndpointGroup, client: str) -> None:
        """Add a request. Idempotent."""
        self.groups.setdefault(group, client)
        if len(self.clients) < MAX_PAIRS:
            self.clients[client] = None

    def on_events(self, _events: int) -> None:
        number = self.sock.getsockopt(_socket.SOL_SOCKET, _socket.SO_ERROR)
        versions = (group.serving.handling.proxy_protocol for group in self.groups)
        version = next((v for v in versions if v is not None), None)
        if not number and version is not None:
            with contextlib.suppress(OSError):
                self.sock.send(write_local_header(version))
        self.owner.ended(self, has_answer=number == 0)

    def end(self) -> None:
        """Give up: there was no answer."""
        self.owner.ended(self, has_answer=False)
