"""Decides whether a failed dial from a client's address would fail for all clients.

    dial from the client's address failed ──▶ endpoint ejected ──▶ dial from this node's address
                                                  │ fails, too: it stays ejected
                                                  └ answered: the ejection ends, and for a minute
                                                    failures of this pair eject nothing

If a network policy denies one client an endpoint, dials from that client's address fail as if the
endpoint were dead; it must remain available to all other clients.

Rule 1: a probe carries no bytes of the client, so it can't bypass a network policy.
Rule 2: one probe answers all requests that arrive while it is in progress, from several clients
and from several Service ports that share the endpoint.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from ..balance.client_endpoint_pairs import MAX_PAIRS, PAIR_S, Pairs
from ..facts import EndpointCounters
from ..kernel.listening_sockets import family_of
from ..kernel.socket_options import stay_unseen
from ..log_fields import FieldLogger
from ..model import DialFailure, Failure, SocketAddress
from ..model.failures import dial_failure
from . import reactor as epoll
from .endpoint_group import EndpointGroup
from .engine import Engine
from .reactor import Callback, Reactor, Timeouts

_log = FieldLogger("userspace_proxy.dataplane")

_MAX_UNDER_WAY = 64
_SILENT = DialFailure(Failure.SILENT, errno.ETIMEDOUT)

Ended = Callable[[SocketAddress, DialFailure | None], None]
"""Takes the endpoint and the failure, or None if the endpoint answered."""


class ProbeDials:
    """The dials in progress, at most one per endpoint, which the listening program never notices.

        begin ──connect──▶ answered, refused, unreachable, silent until the deadline ──▶ ended

    The caller decides when to dial and what an answer means. Commands, which run no event loop, use
    ``explain.dial`` instead.

    Args:
        ended: Called once for each dial, unless it failed at once or was stopped.
    """

    def __init__(self, reactor: Reactor, deadline_s: float, ended: Ended) -> None:
        self._reactor = reactor
        self._ended = ended
        self._fds: dict[SocketAddress, int] = {}
        self._deadlines = Timeouts(reactor, deadline_s, partial(self._end, failed=_SILENT))

    def __len__(self) -> int:
        return len(self._fds)

    def begin(self, endpoint: SocketAddress) -> DialFailure | None:
        """Dial an endpoint without a dial in progress; return an immediate failure, else None."""
        calls = self._reactor.calls
        fd = calls.open_stream(family_of(endpoint.ip))
        if fd >= 0:
            stay_unseen(calls.socket(fd))
            fd = calls.connect(fd, endpoint.ip, endpoint.port, False)
        if fd < 0:
            return dial_failure(-fd, endpoint.ip)
        number = self._reactor.watch(fd, epoll.OUT, Callback(partial(self._has_event, endpoint)))
        if number < 0:
            calls.close(fd)
            return dial_failure(-number, endpoint.ip)
        self._fds[endpoint] = fd
        self._deadlines.start(endpoint, self._reactor.clock())
        return None

    def stop(self, endpoint: SocketAddress) -> None:
        """Cancel a dial. Idempotent."""
        if endpoint in self._fds:
            self._deadlines.stop(endpoint)
            self._reactor.close_descriptor(self._fds.pop(endpoint))

    def close(self) -> None:
        for endpoint in list(self._fds):
            self.stop(endpoint)
        self._deadlines.close()

    def _has_event(self, endpoint: SocketAddress, _events: int) -> None:
        number = self._reactor.calls.take_error(self._fds[endpoint])
        self._end(endpoint, dial_failure(number, endpoint.ip) if number else None)

    def _end(self, endpoint: SocketAddress, failed: DialFailure | None) -> None:
        self.stop(endpoint)
        self._ended(endpoint, failed)


class Probes:
    """The probes of one data plane, on its engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._under_way: dict[SocketAddress, _Requests] = {}
        # Pairs last a minute: policies change rarely, and if the endpoint dies within that minute,
        # dials of other clients fail and eject it.
        self.pairs = Pairs()
        """Pairs of a client and an endpoint that, as a probe has shown, answers this node but not
        the client."""
        self._dials = ProbeDials(engine.reactor, engine.tuning.connect_timeout_s, self._ended)

    def denied(
        self, group: EndpointGroup, client: str, endpoint: SocketAddress, failed: DialFailure
    ) -> None:
        """Record a failed dial from a client's address to an endpoint that answers this node."""
        now, denials = self._engine.reactor.now, group.counters_of(endpoint).denials
        # Don't add old failures of another client: they prove nothing about this client.
        if denials.part.client != client and now - denials.part.last_at >= PAIR_S:
            denials.end()
        denials.dial_failed(now, failed, client)

    def admitted(
        self, counters: EndpointCounters, client: str, endpoint: SocketAddress, now: float
    ) -> None:
        """Record an answer to a client's address, if the endpoint denied this client before."""
        denials = counters.denials
        if denials.part.client == client or self.pairs.has(client, endpoint, now):
            denials.succeeded_at = now

    def request(self, group: EndpointGroup, client: str, endpoint: SocketAddress) -> None:
        """Dial an endpoint from this node's address; an answer ends its ejection from the group.

        Nothing is dialled if the endpoint has left, because another pod may have its address, or
        while too many probes are in progress or no descriptor is free.
        """
        if endpoint not in group.serving.all_endpoints:
            return
        requests = self._under_way.get(endpoint)
        if requests is None:
            if len(self._under_way) >= _MAX_UNDER_WAY or not self._engine.descriptors.has_room(1):
                return
            if self._dials.begin(endpoint):
                # The probe failed at once: no permitted route to the endpoint, or no socket.
                return
            self._engine.descriptors.take(1)
            requests = self._under_way[endpoint] = _Requests({}, {})
        requests.groups.setdefault(group, client)
        if len(requests.clients) < MAX_PAIRS:
            requests.clients[client] = None

    def close(self) -> None:
        self._dials.close()
        self._engine.descriptors.give(len(self._under_way))
        self._under_way.clear()

    def _ended(self, endpoint: SocketAddress, failed: DialFailure | None) -> None:
        requests = self._under_way.pop(endpoint)
        now = self._engine.reactor.now
        if failed is None:
            for client in requests.clients:
                self.pairs.note(client, endpoint, now)
            for group, client in requests.groups.items():
                _log.info(
                    "%(service)s: endpoint %(endpoint)s answers this node, but did not answer "
                    "%(client)s",
                    extra={"service": group.label, "client": client, "endpoint": str(endpoint)},
                )
                dials = group.answered(endpoint, now).dials
                self.denied(group, client, endpoint, dials.dial_failure)
        # Release the descriptor last: this may resume clients that wait for descriptors, and their
        # dials may request other probes at once.
        self._engine.descriptors.give(1)


class _Requests(NamedTuple):
    """The requests waiting for the result of one dial."""

    groups: dict[EndpointGroup, str]
    """Groups that have ejected the endpoint, each with its first client whose dial failed."""
    clients: dict[str, None]
    """Clients in the order of their requests; at most as many as ``Pairs`` remembers."""
