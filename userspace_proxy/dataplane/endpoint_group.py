"""The endpoints of one Service port on the data path: choice and counters."""

from __future__ import annotations

import _socket
import errno
import os
from collections.abc import Callable, Collection, Mapping, Sequence

from ..balance import Balancer, Limited, Preferred, SplitBalancer, Strategy, Weights
from ..log_fields import FieldLogger
from ..log_limit import LogLimit
from ..model import Balance, SocketAddress
from ..policy import causes
from .counters import CounterTable, EndpointCounters
from .detours import end_failures, failure_fields
from .reactor import Reactor
from .redials import Redials
from .serving import Serving
from .sockets import SHORTAGES, packets_lost
from .strategies import BY_LOAD, make_strategy
from .waiting_room import Waiting, WaitingRoom

_log = FieldLogger("userspace_proxy.dataplane")

# Per Service port and minute; the last one says that further ones are left out.
_EJECTION_LINES = 11


class EndpointGroup(CounterTable):
    """One balancer with its counters, for the listeners of one Service port.

    Connections keep their group for life, so the counters of an endpoint that has left the plan
    change until its last connection ends, and then stay in the sums.

    The label, such as ``shop/web:http``, is for logs; the start is the position of the first turn,
    and which one of so many processes this is.
    """

    def __init__(
        self, label: str, serving: Serving | None = None, *, start: int = 0, processes: int = 1
    ) -> None:
        super().__init__()
        self.label = label
        self.serving = serving or Serving()
        """The last one of :meth:`update`."""
        self.detours: dict[SocketAddress, SocketAddress] = {}
        """Where endpoints are dialled instead; nearly always empty."""
        self.tracks_load = False
        """Whether dials must be counted: some strategies choose by load."""
        self.waiting_room: WaitingRoom | None = None
        """None before the first client has waited."""
        self._redials: Redials | None = None
        self._start = start
        self._processes = processes
        self._limit = self._share_of_limit()
        """Connections that an endpoint may have; None: any number."""
        self._dialling: dict[SocketAddress, int] = {}
        self._weights = Weights(dict(self.serving.weights), self.serving.handling.slow_start_s)
        self.balancer: Balancer | SplitBalancer = self._balancer_of(self.serving.endpoints)
        self.on_removed: list[Callable[[frozenset[SocketAddress]], None]] = []
        """Called with the endpoints that an update has removed or put on standby, at least for
        some clients."""
        self.on_ejected: Callable[[SocketAddress, bool], None] | None = None
        """Called when a failed dial has ejected an endpoint, or prolonged its ejection; the flag is
        whether it was silent."""
        self.on_returned: Callable[[SocketAddress], None] | None = None
        """Called when a dial has ended an ejection."""
        self.on_waiting: Callable[[], None] | None = None
        """Called when a client finds no endpoint, and none of those that wait has found that."""
        self._returned_at: dict[SocketAddress, float] = {}
        """When the last ejection of an endpoint ended."""
        self._shortage_log_limit = LogLimit()
        self._ejection_log_limit = LogLimit(_EJECTION_LINES)
        self._return_log_limit = LogLimit(_EJECTION_LINES)
        self._change_balancer(self.serving)
        self.detours = dict(self.serving.detours)

    def update(self, serving: Serving, now: float = 0.0) -> frozenset[SocketAddress]:
        """Change how clients are served; TCP connections to removed endpoints continue, flows end.

        The turn, and the pins and ejections of endpoints that stay, are kept. Returns the endpoints
        that have left, at least for some clients. The time counts for new endpoints that start
        slowly.
        """
        old, self.serving = self.serving, serving
        self.detours = dict(serving.detours)
        current = frozenset(serving.all_endpoints)
        self._change_balancer(old)
        if self._weights.may_grow:
            self._weights.keep(current)
            self._weights.begin(serving.newcomers(frozenset(old.all_endpoints)), now)
        removed = frozenset(old.all_endpoints) - current
        left = removed | old.gone_in(serving)
        gone = left.union(e for e in old.leaving if not self.serves_everyone(e))
        self._end_flows(gone.difference(serving.leaving))
        if removed:
            for endpoint in removed:
                self._returned_at.pop(endpoint, None)
            self.fold(current)
        end_failures(old, serving, self.counters_of, self.balancer, self.on_returned)
        if self.waiting_room is not None:
            self.waiting_room.update(serving.handling.waits, is_uniform=self._is_uniform)
        return left

    def end_flows_to(self, endpoint: SocketAddress) -> None:
        """End the flows to an endpoint that has left."""
        if not self.serves_everyone(endpoint):
            self._end_flows(frozenset({endpoint}))

    def _end_flows(self, endpoints: frozenset[SocketAddress]) -> None:
        if endpoints:
            for callback in self.on_removed:
                callback(endpoints)

    def waiting(self, now: float) -> Waiting:
        """Return the clients that wait for an endpoint now."""
        return Waiting() if self.waiting_room is None else self.waiting_room.waiting(now)

    def open_waiting_room(self, reactor: Reactor, *, is_at_limit: bool) -> WaitingRoom | None:
        """Return where a client waits that no endpoint takes; None if it is to be refused.

        ``is_at_limit`` is whether it waits for an endpoint at its limit.
        """
        handling = self.serving.handling
        if handling.hold is None and not is_at_limit:
            return None
        if self.waiting_room is None:
            self.waiting_room = WaitingRoom(
                reactor,
                self._processes,
                self.counters,
                handling.waits,
                is_uniform=self._is_uniform,
            )
        if not (is_at_limit or self.waiting_room.lacks_endpoints or self.on_waiting is None):
            self.on_waiting()
        return self.waiting_room

    def redial(self, dial: Callable[[], None], reactor: Reactor) -> None:
        """Dial for a client after a failed dial, when it is its turn."""
        if self._redials is None:
            self._redials = Redials(reactor)
        self._redials.add(dial)

    @property
    def _is_uniform(self) -> bool:
        """Whether all clients use the same endpoints."""
        return self.serving.affinity_timeout_s is None and self.serving.outside is None

    def is_at_limit(self, client: str, now: float, tried: Collection[SocketAddress]) -> bool:
        """Return whether a client has to wait for an endpoint at its limit."""
        return self._limit is not None and self.balancer.is_at_limit(client, now, tried=tried)

    def is_full(self, endpoint: SocketAddress) -> bool:
        """Return whether an endpoint is at its limit."""
        return self._limit is not None and self.load_of(endpoint) >= self._limit

    def _share_of_limit(self) -> int | None:
        """Return this worker's share of the limit of endpoints: 1 at least."""
        limit = self.serving.handling.max_connections
        if limit is None:
            return None
        share, rest = divmod(limit, self._processes)
        return max(1, share + (self._start % self._processes < rest))

    def serves(self, client: str, endpoint: SocketAddress) -> bool:
        """Return whether new connections of a client may use an endpoint."""
        return self.balancer.serves(client, endpoint)

    def serves_everyone(self, endpoint: SocketAddress) -> bool:
        """Return whether new connections of any client may use an endpoint."""
        balancer = self.balancer
        balancers = (
            (balancer.inner, balancer.outer) if isinstance(balancer, SplitBalancer) else (balancer,)
        )
        return all(each.serves("", endpoint) for each in balancers)

    def former_endpoints(self) -> set[SocketAddress]:
        """Return the endpoints that aren't any more, and still have connections."""
        current = self.serving.all_endpoints
        return {e for e, counters in self.each_counters() if counters.active and e not in current}

    def count_lost(self, sock: _socket.socket, before: int) -> int:
        """Count what the kernel has dropped at a listening socket; returns its number now.

        Where not all clients are admitted, these are nearly all drops.
        """
        lost = packets_lost(sock)
        new = (lost - before) & 0xFFFFFFFF
        if self.serving.admits is None:
            self.counters.dropped_datagrams += new
        else:
            self.counters.denied += new
        return lost

    def prefer(self, endpoint: SocketAddress) -> None:
        """Have the next connection that may use an endpoint use it; affinity comes first."""
        balancer = (
            self.balancer.inner if isinstance(self.balancer, SplitBalancer) else self.balancer
        )
        then = balancer.strategy

        def end() -> None:
            balancer.strategy = then

        balancer.strategy = Preferred(endpoint, then, end)

    def load_of(self, endpoint: SocketAddress) -> int:
        """Return how many connections an endpoint has, including those that are being dialled."""
        return self.counters_of(endpoint).active + self._dialling.get(endpoint, 0)

    def dial_began(self, endpoint: SocketAddress) -> None:
        """Count a dial; call only if ``tracks_load``."""
        self._dialling[endpoint] = self._dialling.get(endpoint, 0) + 1

    def dial_ended(self, endpoint: SocketAddress) -> None:
        """Stop counting a dial. Idempotent."""
        left = self._dialling.get(endpoint, 0) - 1
        if left > 0:
            self._dialling[endpoint] = left
        else:
            self._dialling.pop(endpoint, None)

    def _change_balancer(self, old: Serving) -> None:
        serving, before = self.serving, self.balancer
        inner, outer = (
            (before.inner, before.outer) if isinstance(before, SplitBalancer) else (before, None)
        )
        self._limit = self._share_of_limit()
        was_weighted = bool(self._weights)
        self._weights.configure(dict(serving.weights), serving.handling.slow_start_s)
        handling = old.handling
        is_other_strategy = (
            serving.handling.balance is not handling.balance
            or serving.handling.seed != handling.seed
            or serving.handling.max_connections != handling.max_connections
            or bool(self._weights) is not was_weighted
        )
        self._change(inner, serving.endpoints, is_other_strategy=is_other_strategy)
        self.balancer = inner
        if serving.outside is not None:
            if outer is None:
                outer = self._balancer_of(serving.outside)
            else:
                self._change(outer, serving.outside, is_other_strategy=is_other_strategy)
            self.balancer = SplitBalancer(inner, outer, serving.inside)

    def _balancer_of(self, endpoints: Sequence[SocketAddress]) -> Balancer:
        balancer = Balancer(
            endpoints,
            affinity_timeout_s=self.serving.affinity_timeout_s,
            strategy=self._make_strategy(),
            standbys=dict(self.serving.standbys),
            weights=self._weights,
        )
        balancer.is_full = None if self._limit is None else self.is_full
        return balancer

    def _change(
        self,
        balancer: Balancer,
        endpoints: Sequence[SocketAddress],
        *,
        is_other_strategy: bool,
    ) -> None:
        if is_other_strategy:
            balancer.strategy = self._make_strategy()
        balancer.is_full = None if self._limit is None else self.is_full
        balancer.update(
            endpoints,
            affinity_timeout_s=self.serving.affinity_timeout_s,
            standbys=dict(self.serving.standbys),
        )

    def _make_strategy(self) -> Strategy:
        handling = self.serving.handling
        balance = handling.balance
        if self._limit is not None and balance is Balance.ROUND_ROBIN:
            # The place that becomes free is then that of the endpoint with the most room.
            balance = Balance.LEAST_CONNECTIONS
        self.tracks_load = balance in BY_LOAD or self._limit is not None
        if not self.tracks_load:
            # The ends of dials in progress aren't reported any more.
            self._dialling.clear()
        strategy = make_strategy(balance, self._weights, self.load_of, self._start + handling.seed)
        return strategy if self._limit is None else Limited(strategy, self.is_full)

    def dial_failed(
        self,
        endpoint: SocketAddress,
        number: int,
        now: float,
        *,
        client: str = "",
        is_client_specific: bool = False,
        may_be_client_specific: bool = False,
    ) -> None:
        """Count a failed dial, and eject the endpoint if it was the cause.

        The client is the one at whose address it was dialled, empty for this node's;
        ``is_client_specific`` means that the endpoint answers other clients, and
        ``may_be_client_specific`` that it may well do so.
        """
        counters = self.counters_of(endpoint)
        cause = causes.dial_failed(endpoint, number, os.strerror(number))
        counters.count_failure(cause.code)
        fields = {"service": self.label, **failure_fields(endpoint, cause, self.detours)}
        if number in SHORTAGES:
            self.counters.shortages += 1
            if number == errno.EADDRNOTAVAIL and client:
                self._count_client_ports(now)
            elif number == errno.EADDRNOTAVAIL:
                self.counters.out_of_ports += 1
                self.out_of_ports_at = now
            if self._shortage_log_limit.take(now):
                _log.warning(
                    "%(service)s: out of local ports, descriptors or memory: %(cause)s",
                    extra=fields,
                )
            return
        if is_client_specific:
            return
        counters.dials.failed(now, number)
        is_silent = number == errno.ETIMEDOUT
        if may_be_client_specific:
            return
        if self.balancer.failed(endpoint, now, is_silent=is_silent):
            if self._ejection_log_limit.take(now):
                self._log_ejection(fields, is_last=not self._ejection_log_limit.left)
            if self.on_ejected is not None:
                self.on_ejected(endpoint, is_silent)

    def _log_ejection(self, fields: Mapping[str, str], *, is_last: bool) -> None:
        if not is_last:
            _log.warning("%(service)s: endpoint ejected: %(cause)s", extra=fields)
            return
        _log.warning(
            "%(service)s: more endpoints ejected, not logged one by one for up to a minute",
            extra={"service": self.label},
        )

    def left_client_address(self, endpoint: SocketAddress, client: str, now: float) -> None:
        """Count and log a dial from this node's address, as no port of the client's was free."""
        self._count_client_ports(now)
        fields = {
            "service": self.label,
            "endpoint": str(endpoint),
            "client": client,
            "cause": "the client's ports 61000-65535 towards the endpoint are in use",
            "hint": "set net.ipv4.tcp_timestamps=1 on this node and in the endpoint",
        }
        if self._shortage_log_limit.take(now):
            _log.warning(
                "%(service)s: endpoint %(endpoint)s sees this node's address, not that of "
                "%(client)s: %(cause)s",
                extra=fields,
            )

    def _count_client_ports(self, now: float) -> None:
        self.counters.out_of_client_ports += 1
        self.out_of_client_ports_at = now

    def answered(self, endpoint: SocketAddress, now: float) -> EndpointCounters:
        """Note that a dial succeeded; it ends an ejection. Returns the endpoint's counters."""
        counters = self._per_endpoint.get(endpoint) or self.counters_of(endpoint)
        counters.dials.succeeded_at = now
        if self.balancer.answered(endpoint):
            self._note_return(endpoint, now)
            if self._return_log_limit.take(now):
                self._log_return(endpoint, is_last=not self._return_log_limit.left)
            if self.on_returned is not None:
                self.on_returned(endpoint)
        return counters

    def _note_return(self, endpoint: SocketAddress, now: float) -> None:
        self._returned_at[endpoint] = now
        if self._weights.may_grow:
            others = frozenset(self.serving.all_endpoints) - {endpoint}
            self._weights.begin(self.serving.newcomers(others), now)
        if self.waiting_room is not None:
            self.waiting_room.retry()

    def _log_return(self, endpoint: SocketAddress, *, is_last: bool) -> None:
        if not is_last:
            fields = {"service": self.label, "endpoint": str(endpoint)}
            _log.info("%(service)s: endpoint is back: %(endpoint)s", extra=fields)
            return
        _log.info(
            "%(service)s: more endpoints are back, not logged one by one for up to a minute",
            extra={"service": self.label},
        )

    def returned(self, endpoint: SocketAddress, now: float) -> None:
        """End an ejection: the endpoint has answered another worker."""
        counters = self._per_endpoint.get(endpoint)
        if counters is not None:
            counters.dials.succeeded_at = now
        if self.balancer.answered(endpoint):
            self._note_return(endpoint, now)

    def has_returned_since(self, endpoint: SocketAddress, moment: float) -> bool:
        """Return whether an ejection has ended since: the silence of an older dial is over."""
        return self._returned_at.get(endpoint, moment) > moment

    def ejected(self, now: float) -> Mapping[SocketAddress, float]:
        """Return the ejected endpoints, each with the seconds until its probe is due."""
        return self.balancer.ejected(now)
