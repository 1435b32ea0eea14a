"""Which UDP flows live, and for how long. No socket, no clock of its own.

    new ──▶ young: 30 s idle ──client answers an answer──▶ stream: 120 s idle

Rule 1: both classes are ordered by last use, so the next flow to end by time is the first of
one of them: nothing is ever scanned.
Rule 2: a flow moves to the end of its class at most once a second; its end is
late by no more than that.
Rule 3: in a full table flows of a client above its share give way first, then those of a Service
port above its share, then any (``shares``). Young ones go before streams, as conntrack's early
drop spares assured entries, and among them those that have been idle for longest.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from itertools import islice
from typing import Generic, Protocol, TypeVar

from .shares import client_share, service_share

# conntrack's nf_conntrack_udp_timeout and nf_conntrack_udp_timeout_stream.
YOUNG_IDLE_S = 30.0
STREAM_IDLE_S = 120.0
GRAIN_S = 1.0

# Of each class so many are looked at for one above its share; who has an eighth of the table is
# among them, or was used lately.
_LOOKED_AT = 32


class Flow(Protocol):
    """What the table must know of a flow; the attributes belong to the table."""

    is_stream: bool
    used: float

    @property
    def client_ip(self) -> str:
        """The client's IP address."""

    @property
    def group(self) -> Hashable:
        """The Service port."""


F = TypeVar("F", bound=Flow)


class _Holders:
    """How many flows each client, or each Service port, has.

    Args:
        share: What each may keep in a full table.
    """

    def __init__(self, share: int) -> None:
        self.counts: dict[Hashable, int] = {}
        self.share = share
        self.above = 0
        """How many of them have more than their share."""

    def add(self, holder: Hashable) -> None:
        count = self.counts[holder] = self.counts.get(holder, 0) + 1
        if count == self.share + 1:
            self.above += 1

    def remove(self, holder: Hashable) -> None:
        count = self.counts[holder] - 1
        if count == self.share:
            self.above -= 1
        if count:
            self.counts[holder] = count
        else:
            del self.counts[holder]


class FlowTable(Generic[F]):
    """The flows of one data plane.

    Args:
        max_flows: How many at the most.
        idle_s: Seconds of silence for both classes; None for conntrack's two.
    """

    def __init__(self, max_flows: int, idle_s: float | None = None) -> None:
        self.max_flows = max_flows
        self._young_idle_s = YOUNG_IDLE_S if idle_s is None else idle_s
        self._stream_idle_s = STREAM_IDLE_S if idle_s is None else idle_s
        self._young: OrderedDict[F, None] = OrderedDict()
        self._streams: OrderedDict[F, None] = OrderedDict()
        self._clients = _Holders(client_share(max_flows))
        self._services = _Holders(service_share(max_flows))

    def __len__(self) -> int:
        return len(self._young) + len(self._streams)

    @property
    def is_full(self) -> bool:
        """Whether the next new flow needs the place of another."""
        return len(self) >= self.max_flows

    def add(self, flow: F, now: float) -> None:
        """Take in a new flow; the caller has made room."""
        flow.used = now
        flow.is_stream = False
        self._young[flow] = None
        self._clients.add(flow.client_ip)
        self._services.add(flow.group)

    def use(self, flow: F, now: float) -> None:
        """Note a datagram in either direction."""
        if now - flow.used >= GRAIN_S:
            flow.used = now
            (self._streams if flow.is_stream else self._young).move_to_end(flow)

    def make_stream(self, flow: F, now: float) -> None:
        """Note that the flow has gone back and forth."""
        if not flow.is_stream:
            del self._young[flow]
            flow.is_stream = True
            flow.used = now
            self._streams[flow] = None

    def remove(self, flow: F) -> None:
        """Forget a flow; one that isn't here is no error."""
        flows = self._streams if flow.is_stream else self._young
        if flow not in flows:
            return
        del flows[flow]
        self._clients.remove(flow.client_ip)
        self._services.remove(flow.group)

    def first_to_go(self) -> F | None:
        """Return the flow that gives way to a new one, or None of an empty table."""
        clients, services = self._clients, self._services
        flow: F | None = None
        if clients.above:
            flow = self._first(lambda flow: clients.counts[flow.client_ip] > clients.share)
        if flow is None and services.above:
            flow = self._first(lambda flow: services.counts[flow.group] > services.share)
        return flow or self._first(lambda _: True)

    def _first(self, is_above: Callable[[F], bool]) -> F | None:
        for flows in (self._young, self._streams):
            for flow in islice(flows, _LOOKED_AT):
                if is_above(flow):
                    return flow
        return None

    def expired(self, now: float) -> list[F]:
        """Return the flows that have been idle for too long; the caller removes them."""
        due: list[F] = []
        for flows, idle_s in (
            (self._young, self._young_idle_s),
            (self._streams, self._stream_idle_s),
        ):
            for flow in flows:
                if now - flow.used < idle_s:
                    break
                due.append(flow)
        return due
