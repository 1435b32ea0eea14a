"""The contract of a source with any API server; it runs for the fake and for the real one.

A module that runs it defines ``TestContract(SourceContract)`` and a fixture ``cluster``.
"""

from __future__ import annotations

import abc
from typing import Any

from userspace_proxy.cluster import Snapshot
from userspace_proxy.model import Node, ServiceKey
from userspace_proxy.plan.digest import digests_of
from userspace_proxy.sources.kubernetes import KubernetesSource

from ..running import running
from .objects import WEB, endpoint_slice, node, service

NODE_NAME = "alice"


class Cluster(abc.ABC):
    """An API server that a test changes."""

    @abc.abstractmethod
    async def put(self, item: dict[str, Any]) -> None:
        """Add an object, or replace the object with its kind and name."""

    @abc.abstractmethod
    async def delete(self, kind: str, name: str) -> None:
        """Delete an object of the namespace ``default``."""

    @abc.abstractmethod
    async def stop(self) -> None:
        """Kill the API server; its objects stay."""

    @abc.abstractmethod
    async def start(self) -> None:
        """Start the API server again with the same address."""

    @abc.abstractmethod
    def source(self, **options: Any) -> KubernetesSource:
        """Return a source of this API server for the node NODE_NAME, with these options."""


def ips(snapshot: Snapshot) -> tuple[str, ...]:
    """Return the addresses of the Service web; empty if it doesn't exist."""
    state = snapshot.services.get(WEB)
    return state.service.cluster_ips if state else ()


def endpoints(snapshot: Snapshot, name: str = "web") -> list[str]:
    """Return the addresses of a Service's endpoints; empty if it doesn't exist."""
    state = snapshot.services.get(ServiceKey("default", name))
    return [e.ip for item in state.slices for e in item.endpoints] if state else []


class SourceContract:
    async def test_the_first_snapshot_contains_all_existing_objects(self, cluster: Cluster) -> None:
        await cluster.put(service())
        await cluster.put(endpoint_slice("10.244.1.7"))
        await cluster.put(node())
        source = cluster.source()
        async with running(source) as published:
            first = await published.first()
            assert (ips(first), endpoints(first)) == (("10.96.7.1",), ["10.244.1.7"])
            assert first.node == Node("alice", zone="east")
            assert source.status().is_synced
            assert source.status().problems == ()

    async def test_a_service_can_be_added_changed_and_deleted(self, cluster: Cluster) -> None:
        async with running(cluster.source()) as published:
            assert ips(await published.first()) == ()
            await cluster.put(service())
            await published.until(lambda s: ips(s) == ("10.96.7.1",))
            await cluster.put(service(sessionAffinity="ClientIP"))
            await published.until(lambda s: s.services[WEB].service.affinity_timeout_s == 10800)
            await cluster.delete("Service", "web")
            await published.until(lambda s: ips(s) == ())

    async def test_a_slice_can_be_added_changed_and_deleted(self, cluster: Cluster) -> None:
        await cluster.put(service())
        async with running(cluster.source()) as published:
            assert endpoints(await published.first()) == []
            await cluster.put(endpoint_slice("10.244.1.7"))
            await published.until(lambda s: endpoints(s) == ["10.244.1.7"])
            await cluster.put(endpoint_slice("10.244.1.7", "10.244.1.8"))
            await published.until(lambda s: endpoints(s) == ["10.244.1.7", "10.244.1.8"])
            await cluster.delete("EndpointSlice", "web-1")
            await published.until(lambda s: endpoints(s) == [])

    async def test_a_slice_moving_to_another_service_leaves_its_former_service(
        self, cluster: Cluster
    ) -> None:
        await cluster.put(service())
        await cluster.put(endpoint_slice("10.244.1.7"))
        async with running(cluster.source()) as published:
            assert endpoints(await published.first()) == ["10.244.1.7"]
            await cluster.put(endpoint_slice("10.244.1.7", of="cart"))
            await published.until(lambda s: endpoints(s) == [])

    async def test_only_the_node_object_of_this_node_is_followed(self, cluster: Cluster) -> None:
        await cluster.put(node("alice.example", zone="west"))
        missing = Node("alice", is_missing=True, similar=("alice.example",))
        async with running(cluster.source()) as published:
            await published.until(lambda s: s.node == missing)
            await cluster.put(node())
            await published.until(lambda s: s.node == Node("alice", zone="east"))
            await cluster.put(node(zone="north"))
            await published.until(lambda s: s.node == Node("alice", zone="north"))
            await cluster.delete("Node", "alice")
            await published.until(lambda s: s.node == missing)

    async def test_an_outage_removes_no_objects_and_later_changes_are_received(
        self, cluster: Cluster
    ) -> None:
        await cluster.put(service())
        await cluster.put(endpoint_slice("10.244.1.7"))
        await cluster.put(node())
        source = cluster.source()
        async with running(source) as published:
            await published.first()
            count = len(published.snapshots)
            await cluster.stop()
            await cluster.start()
            await cluster.put(endpoint_slice("10.244.1.8"))
            after = await published.until(lambda s: endpoints(s) == ["10.244.1.8"])
            assert ips(after) == ("10.96.7.1",)
            assert len(published.snapshots) == count + 1

    async def test_a_watched_state_and_a_newly_listed_state_have_equal_digests(
        self, cluster: Cluster
    ) -> None:
        await cluster.put(service())
        await cluster.put(endpoint_slice("10.244.1.7", "10.244.1.8"))
        async with running(cluster.source(with_headless=True)) as followed:
            await followed.first()
            hold = {"userspace-proxy.io/hold": "60s"}
            web = service(sessionAffinity="ClientIP", type="LoadBalancer")
            await cluster.put({**web, "metadata": {"name": "web", "annotations": hold}})
            # An endpoint moves to another slice; for a short time both slices list it.
            await cluster.put(endpoint_slice("10.244.1.8", name="web-2"))
            await cluster.put(endpoint_slice("10.244.1.7"))
            await cluster.put(service("cart", "10.96.7.2"))
            await cluster.delete("Service", "cart")
            await cluster.put(service("last", "10.96.7.3"))
            last = ServiceKey("default", "last")
            after = await followed.until(
                lambda s: last in s.services and endpoints(s) == ["10.244.1.7", "10.244.1.8"]
            )
            async with running(cluster.source(with_pods=True)) as listed:
                found = digests_of((await listed.first()).services)
        assert {"default/web", "default/last"} <= found.keys()
        assert digests_of(after.services) == found
