"""Connects those that watch connections with the workers, and names their clients.

    Observing ──filters, 4 times a second──▶ plane ──▶ workers
              ◀────── connections, calls of clients ──────┘
              ◀── pods by address ── the newest snapshot

Rule 1: while nothing watches, workers aren't asked, and only the names of this node's pods are
kept: calls come with workers' reports anyway, and nearly all of their clients are such pods.
Rule 2: the name of a client is that of the pod that an EndpointSlice has for its address. An
address of a node, or of several pods, has none: pods in the node's network share it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Protocol

from ..cluster import ServiceState, Snapshot, differing_keys
from ..facts.connection import ConnectionFacts, ConnectionFilter, LeftOut
from ..facts.edges import Calls, no_pod
from .messages import Called, Observed
from .plane import Plane

# Between two questions to workers.
PERIOD_S = 0.25


class Observers(Protocol):
    """Those that watch: see ``status.observing``."""

    is_on: asyncio.Event

    def filters(self) -> Sequence[ConnectionFilter]:
        """Return what is watched, each once."""

    def deliver(self, records: Sequence[ConnectionFacts], left_out: Iterable[LeftOut]) -> None:
        """Pass on what a worker has observed."""

    def add_calls(
        self, calls: Iterable[Calls], left_out: int, pod_of: Callable[[str], str]
    ) -> None:
        """Add what a worker has counted of clients' calls; the function names an address's pod."""


class Observation:
    """What connects the plane of one proxy with its watchers.

    Args:
        latest: Returns the newest snapshot; None before the first one.
        node: The name of this node; empty if it has none.
    """

    def __init__(
        self,
        plane: Plane,
        observing: Observers,
        latest: Callable[[], Snapshot | None],
        node: str = "",
    ) -> None:
        self._plane = plane
        self._observing = observing
        self._latest = latest
        self._pods = PodNames()
        """Of the cluster, while something watches."""
        self._own_pods = PodNames(node)
        plane.on_observed = self._take

    async def run(self) -> None:
        """Ask workers while something watches, until cancelled."""
        while True:
            await self._observing.is_on.wait()
            while filters := self._observing.filters():
                self._plane.observe(filters)
                await asyncio.wait([asyncio.get_running_loop().create_future()], timeout=PERIOD_S)
            self._plane.observe(())
            self._pods = PodNames()

    async def ask(self) -> None:
        """Have workers observe what is watched from now on; returns when what they had is here."""
        self._plane.observe(self._observing.filters())
        await self._plane.refresh()

    def _take(self, message: Observed | Called) -> None:
        if isinstance(message, Called):
            self._observing.add_calls(message.calls, message.left_out, self._names(self._own_pods))
        elif self._observing.is_on.is_set():
            pod_of = self._names(self._pods)
            for one in message.records:
                one.client_pod = pod_of(one.client_ip)
            self._observing.deliver(message.records, message.left_out)

    def _names(self, pods: PodNames) -> Callable[[str], str]:
        snapshot = self._latest()
        return no_pod if snapshot is None else partial(pods.of, snapshot)


class PodNames:
    """The pods of addresses; it follows snapshots by what differs.

    Args:
        node: Only pods on this node, and those whose node isn't known; empty: all.
    """

    def __init__(self, node: str = "") -> None:
        self._node = node
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
            for ip, pod in self._pods_of(before.services.get(key)):
                listed = self._pods[ip]
                listed[pod] -= 1
                if not listed[pod]:
                    del listed[pod]
                    if not listed:
                        del self._pods[ip]
            for ip, pod in self._pods_of(snapshot.services.get(key)):
                self._pods.setdefault(ip, Counter())[pod] += 1

    def _pods_of(self, state: ServiceState | None) -> Iterator[tuple[str, str]]:
        node = self._node
        for item in state.slices if state is not None else ():
            for endpoint in item.endpoints:
                if endpoint.pod and (not node or endpoint.node in ("", node)):
                    yield endpoint.ip, f"{item.key.namespace}/{endpoint.pod}"
