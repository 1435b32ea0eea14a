"""Which UDP flows live, and for how long. No socket, no clock of its own.

    new ──▶ young: 30 s idle ──client answers an answer──▶ stream: 120 s idle

Rule 1: both classes are ordered by last use, so the next flow to end, by time or
because the table is full, is the first of one of them: nothing is ever scanned.
Rule 2: a flow moves to the end of its class at most once a second; its end is
late by no more than that.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, Protocol, TypeVar

# conntrack's nf_conntrack_udp_timeout and nf_conntrack_udp_timeout_stream.
YOUNG_IDLE_S = 30.0
STREAM_IDLE_S = 120.0
GRAIN_S = 1.0


class Flow(Protocol):
    """What the table must know of a flow; the attributes belong to the table."""

    is_stream: bool
    used: float


F = TypeVar("F", bound=Flow)


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
        (self._streams if flow.is_stream else self._young).pop(flow, None)

    def longest_idle(self) -> F | None:
        """Return the flow that was used longest ago, or None of an empty table."""
        heads = [next(iter(flows)) for flows in (self._young, self._streams) if flows]
        return min(heads, key=lambda flow: flow.used, default=None)

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
