"""A source that reads the simulated objects without an API server: for runs without its faults."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import TYPE_CHECKING

from userspace_proxy.cluster import Snapshot, Store
from userspace_proxy.sources import Source
from userspace_proxy.sources.base import Publish, SourceStatus
from userspace_proxy.sources.kubernetes.resources import (
    SERVICES,
    SLICES,
    ResourceCache,
    metadata_of,
    this_node,
)

from .plan import NODE, Object

if TYPE_CHECKING:
    from .cluster import Cluster


class ObjectSource(Source):
    """Publishes each change of the cluster a moment later."""

    kind = "kubernetes"
    location = "https://10.96.0.1"

    def __init__(self, cluster: Cluster, call_later: Callable[..., object]) -> None:
        self._cluster = cluster
        self._call_later = call_later
        self._store = Store()
        self._caches = {
            resource.kind: ResourceCache(resource, self._store)
            for resource in (SERVICES, SLICES, this_node(NODE))
        }
        self._publish: Publish | None = None

    def resume(self, snapshot: Snapshot) -> None:
        """Part of Source."""
        self._store.resume(snapshot)
        states = snapshot.services.values()
        self._caches["Service"].resume(state.service.key for state in states)
        slices = [item.key for state in states for item in state.slices]
        self._caches["EndpointSlice"].resume(slices)

    async def run(self, publish: Publish) -> None:
        """Part of Source."""
        for kind, cache in self._caches.items():
            cache.begin_list()
            items = (item for key, item in self._cluster.objects.items() if key[0] == kind)
            cache.list_items([_encoded(item) for item in items if _is_watched(item)])
            cache.end_list()
        self._publish = publish
        publish(self._store.snapshot())
        self._cluster.watchers.append(self._changed)
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            self._publish = None

    def status(self) -> SourceStatus:
        """Part of Source."""
        return SourceStatus(self._publish is not None, self._publish is not None)

    def _changed(self, item: Object, is_deleted: bool) -> None:
        if _is_watched(item):
            self._call_later(0.005, self._take, item, is_deleted)

    def _take(self, item: Object, is_deleted: bool) -> None:
        if self._publish is None:
            return
        cache = self._caches[item["kind"]]
        encoded = _encoded(item)
        (cache.delete if is_deleted else cache.put)(encoded, metadata_of(encoded))
        self._publish(self._store.snapshot())


def _is_watched(item: Object) -> bool:
    """Return whether a server selects an object: of Nodes only this one is asked for."""
    return bool(item["kind"] != "Node" or item["metadata"]["name"] == NODE)


def _encoded(item: Object) -> bytes:
    return json.dumps(item).encode()
