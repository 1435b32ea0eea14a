"""Publishes the Services that the embedding program adds."""

from __future__ import annotations

import asyncio

from ..cluster import Store
from ..model import EndpointSlice, Node, Service, ServiceKey, SliceKey
from .base import Publish, Source, SourceStatus


class MemorySource(Source):
    """A source that publishes each change immediately, and earlier changes when ``run`` begins.

    Call all methods in the event loop's thread.
    """

    kind = "memory"
    location = "this program"

    def __init__(self) -> None:
        self._store = Store()
        self._publish: Publish | None = None

    async def run(self, publish: Publish) -> None:
        self._publish = publish
        try:
            publish(self._store.snapshot())
            await asyncio.get_running_loop().create_future()
        finally:
            self._publish = None

    def status(self) -> SourceStatus:
        return SourceStatus(is_synced=self._publish is not None)

    def put_service(self, service: Service) -> None:
        """Add a Service, or replace the Service of the same name."""
        self._store.put_service(service)
        self._changed()

    def delete_service(self, key: ServiceKey) -> None:
        """Delete a Service, if it exists; its slices stay."""
        self._store.delete_service(key)
        self._changed()

    def put_slice(self, item: EndpointSlice) -> None:
        """Add a slice, or replace the slice of the same name."""
        self._store.put_slice(item)
        self._changed()

    def delete_slice(self, key: SliceKey) -> None:
        """Delete a slice, if it exists."""
        self._store.delete_slice(key)
        self._changed()

    def set_node(self, node: Node | None) -> None:
        self._store.set_node(node)
        self._changed()

    def _changed(self) -> None:
        if self._publish is not None:
            self._publish(self._store.snapshot())
