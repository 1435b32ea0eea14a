"""Passes workers' observations of connections to watchers, with the names of clients' pods.

    Observing ──filters, 4 times a second──▶ plane ──▶ workers
              ◀────── connections, calls of clients ──────┘
              ◀── pods by address ── the snapshot that rounds have taken

Rule 1: without watchers, workers aren't asked for observations, and only the names of this node's
pods are kept: workers report calls anyway, and nearly all of their clients are pods of this node.
Rule 2: a client is named after the pod that Kubernetes' controller lists for the client's address,
with the pod's node. If only other slices list the pod, the name is marked. An address of a node, or
of several pods, has no name, because pods in the host's network share it.
Rule 3: slices of another namespace can't remove or replace a pod's name: among the controller's
slices, the first namespace that listed the address counts; in the first snapshot, the namespace of
the oldest Service counts.
"""

from __future__ import annotations

import asyncio
import itertools
import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import NamedTuple, Protocol

from ..cluster import Snapshot, differing_keys, differing_slices
from ..facts.connection import ConnectionFacts, ConnectionFilter, LeftOut
from ..facts.edges import Calls, no_pod
from ..model import EndpointSlice
from ..shares import add_to
from .messages import Called, Observed
from .plane import Plane

# The interval between two Observe messages to workers.
PERIOD_S = 0.25


class Observers(Protocol):
    """The watchers: see ``status.observing``."""

    is_on: asyncio.Event

    def filters(self) -> Sequence[ConnectionFilter]:
        """Return the filters of all watchers, without duplicates."""

    def deliver(self, records: Sequence[ConnectionFacts], left_out: Iterable[LeftOut]) -> None:
        """Pass a worker's observations to the watchers."""

    def add_calls(
        self, calls: Iterable[Calls], left_out: int, pod_of: Callable[[str], str]
    ) -> None:
        """Add a worker's counts of clients' calls; ``pod_of`` returns the pod of an address."""


class Observation:
    """The connection between the plane of one proxy and its watchers.

    Args:
        latest: Returns the snapshot of the latest sync round; None before the first one.
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
        self._pods: PodNames | None = None
        """The cluster's pods, while there are watchers; otherwise None."""
        self._own_pods = PodNames(node)
        plane.on_observed = self._take

    async def run(self) -> None:
        """Request observations while there are watchers, until cancelled."""
        while True:
            await self._observing.is_on.wait()
            await self._find_pods()
            while filters := self._observing.filters():
                self._plane.observe(filters)
                await asyncio.wait([asyncio.get_running_loop().create_future()], timeout=PERIOD_S)
            self._plane.observe(())
            self._pods = None

    async def _find_pods(self) -> None:
        """Index the cluster's pods once, in a thread, because there may be many."""
        if self._pods is None and (snapshot := self._latest()) is not None:
            pods = PodNames()
            await asyncio.to_thread(pods.follow, snapshot)
            self._pods = pods

    async def ask(self) -> None:
        """Send the current filters to workers; wait up to a second for their observations."""
        await self._find_pods()
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

    def _names(self, pods: PodNames | None) -> Callable[[str], str]:
        snapshot = self._latest()
        return no_pod if snapshot is None or pods is None else partial(pods.of, snapshot)


class _Lister(NamedTuple):
    """The source that lists a pod for an address."""

    is_controller: bool
    namespace: str


class PodNames:
    """The pods by address, updated from the slices that differ between snapshots.

    Args:
        node: Keep only pods on this node or on an unknown node; empty to keep all pods.
    """

    def __init__(self, node: str = "") -> None:
        self._node = node
        self._snapshot = Snapshot({})
        self._pods: dict[str, dict[_Lister, dict[str, int]]] = {}
        """How often each pod is listed, by address and by source, in the order of first listing."""

    def of(self, snapshot: Snapshot, ip: str) -> str:
        """Follow a snapshot; return an address's pod as ``namespace/name`` (Rule 2), or ``""``."""
        self.follow(snapshot)
        own = () if snapshot.node is None else snapshot.node.addresses
        listed = self._pods.get(ip)
        if not listed or ip in (snapshot.node_addresses or ()) or ip in own:
            return ""
        first = max(listed, key=operator.attrgetter("is_controller"))
        name, *others = itertools.islice(listed[first], 2)
        said = "" if first.is_controller else f" (listed by {first.namespace})"
        return "" if others else f"{first.namespace}/{name}{said}"

    def follow(self, snapshot: Snapshot) -> None:
        """Update the pods from a new snapshot."""
        before, now = self._snapshot.services, snapshot.services
        if self._snapshot is snapshot:
            return
        self._snapshot = snapshot
        differing = differing_keys(before, now)
        created = {key: state.service.created for key in differing if (state := now.get(key))}
        for key in sorted(differing, key=lambda key: (created.get(key, ""), key)):
            for old, new in differing_slices(before.get(key), now.get(key)):
                for ip, lister, pod in self._listed(new):
                    add_to(self._pods.setdefault(ip, {}), lister, pod, 1)
                for ip, lister, pod in self._listed(old):
                    add_to(self._pods[ip], lister, pod, -1)
                    if not self._pods[ip]:
                        del self._pods[ip]

    def _listed(self, item: EndpointSlice | None) -> Iterator[tuple[str, _Lister, str]]:
        if item is None:
            return
        listers = [_Lister(is_controller, item.key.namespace) for is_controller in (False, True)]
        for endpoint in item.endpoints:
            if endpoint.pod and (not self._node or endpoint.node in ("", self._node)):
                yield endpoint.ip, listers[item.is_managed and bool(endpoint.node)], endpoint.pod
