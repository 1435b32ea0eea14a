"""Connects those that watch connections with the workers, and names their clients.

    Observing ──filters, 4 times a second──▶ plane ──▶ workers
              ◀────── connections, calls of clients ──────┘
              ◀── pods by address ── the newest snapshot

Rule 1: while nothing watches, workers aren't asked; calls come with their reports anyway.
Rule 2: the name of a client is that of the pod that an EndpointSlice has for its address. An
address of a node, or of several pods, has none: pods in the node's network share it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol

from ..cluster import ServiceState, Snapshot, differing_keys
from ..facts.connection import ConnectionFacts, ConnectionFilter
from ..facts.edges import Calls
from .messages import Called, Observed
from .plane import Plane

# Between two questions to workers.
PERIOD_S = 0.25


class Observers(Protocol):
    """Those that watch: see ``status.observing``."""

    pod_of: Callable[[str], str]
    is_on: asyncio.Event

    def filters(self) -> Sequence[ConnectionFilter]:
        """Return what is watched, each once."""

    def deliver(self, records: Sequence[ConnectionFacts], left_out: int) -> None:
        """Pass on what a worker has observed."""

    def add_calls(self, calls: Iterable[Calls], left_out: int) -> None:
        """Add what a worker has counted of clients' calls."""


class Observation:
    """What connects the plane of one proxy with its watchers.

    Args:
        latest: Returns the newest snapshot; None before the first one.
    """

    def __init__(
        self, plane: Plane, observing: Observers, latest: Callable[[], Snapshot | None]
    ) -> None:
        self._plane = plane
        self._observing = observing
        self._latest = latest
        self._pods = PodNames()
        plane.on_observed = self._take
        observing.pod_of = self._pod_of

    async def run(self) -> None:
        """Ask workers while something watches, until cancelled."""
        while True:
            await self._observing.is_on.wait()
            while filters := self._observing.filters():
                self._plane.observe(filters)
                await asyncio.wait([asyncio.get_running_loop().create_future()], timeout=PERIOD_S)
            self._plane.observe(())

    def _take(self, message: Observed | Called) -> None:
        if isinstance(message, Called):
            self._observing.add_calls(message.calls, message.left_out)
        elif message.records or message.left_out:
            self._observing.deliver(message.records, message.left_out)

    def _pod_of(self, ip: str) -> str:
        snapshot = self._latest()
        return "" if snapshot is None else self._pods.of(snapshot, ip)


class PodNames:
    """The pods of addresses; it follows snapshots by what differs."""

    def __init__(self) -> None:
        self._snapshot = Snapshot({})
        self._pods: dict[str, Counter[str]] = {}
        """By address, how often each pod is listed."""

    def of(self, snapshot: Snapshot, ip: str) -> str:
        """Return the pod of an address, ``namespace/name``; empty if it isn't known."""
        self._follow(snapshot)
        pods = self._pods.get(ip, ())
        own = () if snapshot.node is None else snapshot.node.addresses
        if len(pods) != 1 or ip in (snapshot.node_addresses or ()) or ip in own:
            return ""
        return next(iter(pods))

    def _follow(self, snapshot: Snapshot) -> None:
        before, self._snapshot = self._snapshot, snapshot
        if before is snapshot:
            return
        for key in differing_keys(before.services, snapshot.services):
            for ip, pod in _pods_of(before.services.get(key)):
                listed = self._pods[ip]
                listed[pod] -= 1
                if not listed[pod]:
                    del listed[pod]
                    if not listed:
                        del self._pods[ip]
            for ip, pod in _pods_of(snapshot.services.get(key)):
                self._pods.setdefault(ip, Counter())[pod] += 1


def _pods_of(state: ServiceState | None) -> Iterator[tuple[str, str]]:
    for item in state.slices if state is not None else ():
        for endpoint in item.endpoints:
            if endpoint.pod:
                yield endpoint.ip, f"{item.key.namespace}/{endpoint.pod}"
