"""Decides which UDP flows are kept, and for how long, without a socket or a clock.

    new ──▶ young: 30 s idle ──the client sends after an answer──▶ stream: 120 s idle

Rule 1: the flows of each class are ordered by last use, so the next flow to expire is the first of
its class, and no scan is needed.
Rule 2: a flow moves to the end of its class at most once a second, so it may expire a second early.
Rule 3: in a full table, the largest client above its share loses a flow; if no client is above its
share, an IPv6 /64 with over half of the table loses a flow, then a Service port above its share,
then any client (``shares``). Young flows are evicted before streams, as conntrack's early drop
spares assured entries, and the longest idle flow is evicted first.
Rule 4: finding that flow needs no scan, because the flows of each holder are also ordered.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Hashable
from typing import Generic, Protocol, TypeVar

from ..shares import remove_from
from .shares import client_share, network_of, service_share

# The idle timeouts of conntrack: nf_conntrack_udp_timeout and nf_conntrack_udp_timeout_stream.
YOUNG_IDLE_S = 30.0
STREAM_IDLE_S = 120.0
GRAIN_S = 1.0

_ALL: Hashable = None
"""The holder that has all flows."""


class Flow(Protocol):
    """A flow whose attributes the table sets; ``used`` is in monotonic seconds."""

    holders: tuple[Hashable, ...]
    is_stream: bool
    used: float

    @property
    def client_ip(self) -> str:
        """The client's IP address."""

    @property
    def group(self) -> Hashable:
        """The flow's Service port."""


F = TypeVar("F", bound=Flow)


class _Order(defaultdict[Hashable, OrderedDict[F, None]]):
    """The flows of one class, by holder; the least recently used flow comes first."""

    def add(self, flow: F) -> None:
        for holder in flow.holders:
            self[holder][flow] = None

    def use(self, flow: F) -> None:
        for holder in flow.holders:
            self[holder].move_to_end(flow)

    def remove(self, flow: F) -> None:
        for holder in flow.holders:
            remove_from(self, holder, flow)


class FlowTable(Generic[F]):
    """The flows of one data plane; ``idle_s`` replaces conntrack's timeouts for both classes."""

    def __init__(self, max_flows: int, idle_s: float | None = None) -> None:
        self.max_flows = max_flows
        self._young_idle_s = YOUNG_IDLE_S if idle_s is None else idle_s
        self._stream_idle_s = STREAM_IDLE_S if idle_s is None else idle_s
        self._young = _Order[F](OrderedDict)
        self._streams = _Order[F](OrderedDict)
        self._counts: dict[Hashable, int] = {}
        of_service = service_share(max_flows)
        self._above = [
            (share, dict[Hashable, None]())
            for share in (client_share(max_flows), of_service, of_service)
        ]
        """The shares of clients, Service ports and networks, each with the holders above it, of
        which there are at most seven."""

    def __len__(self) -> int:
        return len(self._young.get(_ALL, ())) + len(self._streams.get(_ALL, ()))

    @property
    def is_full(self) -> bool:
        """Whether a new flow must replace another flow."""
        return len(self) >= self.max_flows

    def add(self, flow: F, now: float) -> None:
        """Add a new flow, for which the caller has already made room."""
        flow.used = now
        flow.is_stream = False
        network = network_of(flow.client_ip)
        flow.holders = _ALL, flow.client_ip, flow.group
        if network is not None:
            flow.holders = *flow.holders, network
        self._young.add(flow)
        self._count(flow, 1)

    def use(self, flow: F, now: float) -> None:
        """Record a datagram in either direction."""
        if now - flow.used >= GRAIN_S:
            flow.used = now
            (self._streams if flow.is_stream else self._young).use(flow)

    def make_stream(self, flow: F, now: float) -> None:
        """Promote a flow to a stream: the client has sent again after an answer."""
        if not flow.is_stream:
            self._young.remove(flow)
            flow.is_stream = True
            flow.used = now
            self._streams.add(flow)

    def remove(self, flow: F) -> None:
        """Remove a flow. Idempotent."""
        flows = self._streams if flow.is_stream else self._young
        if flow not in flows.get(_ALL, ()):
            return
        flows.remove(flow)
        self._count(flow, -1)

    def first_to_go(self) -> F | None:
        """Return the flow to evict for a new flow; None if the table is empty."""
        clients, services, networks = (above for _, above in self._above)
        above = clients or networks or services
        holder = max(above, key=self._counts.__getitem__, default=_ALL)
        for flows in (self._young, self._streams):
            for flow in flows.get(holder, ()):
                return flow
        return None

    def expired(self, now: float) -> list[F]:
        """Return the flows that have been idle for too long; the caller removes them."""
        due: list[F] = []
        for flows, idle_s in (
            (self._young, self._young_idle_s),
            (self._streams, self._stream_idle_s),
        ):
            for flow in flows.get(_ALL, ()):
                if now - flow.used < idle_s:
                    break
                due.append(flow)
        return due

    def _count(self, flow: F, more: int) -> None:
        """Count a flow for its holders, and record which holders are above their shares."""
        counts = self._counts
        for holder, (share, above) in zip(flow.holders[1:], self._above, strict=False):
            count = counts[holder] = counts.get(holder, 0) + more
            if count > share:
                above[holder] = None
            elif count == share:
                above.pop(holder, None)
            elif not count:
                del counts[holder]
