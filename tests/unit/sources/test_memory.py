"""The source of Services that the embedding program adds."""

from __future__ import annotations

from userspace_proxy.model import (
    Endpoint,
    EndpointSlice,
    IPFamily,
    Node,
    Service,
    ServiceKey,
    ServicePort,
    SliceKey,
    SlicePort,
)
from userspace_proxy.sources import MemorySource

from .running import running

WEB = ServiceKey("shop", "web")
WEB_SERVICE = Service(WEB, (ServicePort("", 80, "TCP"),), cluster_ips=("10.96.7.1",))
WEB_SLICE = EndpointSlice(
    SliceKey("shop", "web-1"),
    WEB,
    IPFamily.IPV4,
    (SlicePort("", 8080, "TCP"),),
    (Endpoint("10.244.1.7"),),
)


async def test_the_first_snapshot_contains_objects_added_before_startup():
    source = MemorySource()
    source.put_service(WEB_SERVICE)
    source.put_slice(WEB_SLICE)
    async with running(source) as published:
        first = await published.first()
        assert first.services[WEB].service == WEB_SERVICE
        assert first.services[WEB].slices == (WEB_SLICE,)
        assert source.status().is_synced


async def test_each_change_is_published_immediately():
    source = MemorySource()
    async with running(source) as published:
        await published.first()
        source.put_service(WEB_SERVICE)
        assert published.last.services[WEB].slices == ()
        source.put_slice(WEB_SLICE)
        assert published.last.services[WEB].slices == (WEB_SLICE,)
        source.delete_slice(WEB_SLICE.key)
        assert published.last.services[WEB].slices == ()
        source.delete_service(WEB)
        assert published.last.services == {}
        source.set_node(Node("alice"))
        assert published.last.node == Node("alice")


async def test_a_stopped_source_publishes_no_snapshots():
    source = MemorySource()
    async with running(source) as published:
        await published.first()
    source.put_service(WEB_SERVICE)
    assert len(published.snapshots) == 1
    assert not source.status().is_synced
