"""The contract of an API server's revisions; it runs for the fake, simulated and real server.

The source and the simulated server's faults rely on it. A module that runs it defines
``TestHistory(HistoryContract)`` and a fixture ``cluster``.
"""

from __future__ import annotations

import abc
import json
from typing import Any

import pytest

from userspace_proxy.sources.kubernetes.client import ApiClient

from .contract import Cluster
from .objects import node, service

PATH = "/api/v1/services"
_SILENCE_S = 1.0


class HistoryCluster(Cluster):
    """A cluster for single requests."""

    @abc.abstractmethod
    async def client(self) -> ApiClient:
        """Return an open client, which the caller closes."""


def names_of(body: bytes) -> list[str]:
    """Return the names in a list, except the name of the API server's own Service."""
    items = json.loads(body)["items"] or ()
    return [i["metadata"]["name"] for i in items if i["metadata"]["name"] != "kubernetes"]


class HistoryContract:
    async def test_a_list_at_a_future_revision_is_rejected(self, cluster: HistoryCluster) -> None:
        client = await cluster.client()
        query = {"resourceVersionMatch": "NotOlderThan", "limit": "500"}
        ahead = str(await _revision(client) + 1000)
        response = await client.get(PATH, {"resourceVersion": ahead, **query})
        await client.close()
        assert response.code == 504
        assert "Too large resource version" in json.loads(response.body)["message"]

    async def test_a_single_object_at_a_future_revision_is_rejected(
        self, cluster: HistoryCluster
    ) -> None:
        client = await cluster.client()
        revision = await _revision(client)
        query = {
            "fieldSelector": "metadata.name=kubernetes",
            "limit": "1",
            "resourceVersionMatch": "NotOlderThan",
        }
        path = "/api/v1/namespaces/default/services"
        now = await client.get(path, {**query, "resourceVersion": str(revision)})
        ahead = await client.get(path, {**query, "resourceVersion": str(revision + 1000)})
        await client.close()
        assert (now.code, ahead.code) == (200, 504)

    async def test_a_watch_from_a_future_revision_is_silent(self, cluster: HistoryCluster) -> None:
        client = await cluster.client()
        ahead = await _revision(client) + 1000
        query = {"watch": "1", "resourceVersion": str(ahead), "timeoutSeconds": "60"}
        async with client.stream(PATH, query) as stream:
            assert stream.code == 200
            await cluster.put(service())
            with pytest.raises(TimeoutError):
                await stream.read(silence_s=_SILENCE_S)
        await client.close()

    async def test_a_watch_starts_after_its_revision(self, cluster: HistoryCluster) -> None:
        client = await cluster.client()
        await cluster.put(service())
        revision = await _revision(client)
        await cluster.put(service("cart", "10.96.7.2"))
        query = {"watch": "1", "resourceVersion": str(revision), "timeoutSeconds": "60"}
        async with client.stream(PATH, query) as stream:
            event = json.loads(await stream.read(silence_s=30))
        await client.close()
        assert (event["type"], event["object"]["metadata"]["name"]) == ("ADDED", "cart")

    async def test_all_pages_of_a_list_have_the_same_revision_and_can_be_reread(
        self, cluster: HistoryCluster
    ) -> None:
        client = await cluster.client()
        for n in range(4):
            await cluster.put(service(f"web-{n}", f"10.96.7.{n + 1}"))
        pages = [await client.get(PATH, {"limit": "2"})]
        await cluster.put(service("web-9", "10.96.7.9"))
        await cluster.delete("Service", "web-3")
        while token := json.loads(pages[-1].body)["metadata"].get("continue"):
            for _ in range(2):
                page = await client.get(PATH, {"limit": "2", "continue": token})
            pages.append(page)
        await client.close()
        names = [name for page in pages for name in names_of(page.body)]
        versions = {json.loads(page.body)["metadata"]["resourceVersion"] for page in pages}
        assert names == ["web-0", "web-1", "web-2", "web-3"]
        assert len(versions) == 1

    async def test_writing_an_object_of_another_kind_advances_the_revision(
        self, cluster: HistoryCluster
    ) -> None:
        client = await cluster.client()
        before = await _revision(client)
        await cluster.put(node())
        after = await _revision(client)
        await client.close()
        assert after > before


async def _revision(client: ApiClient) -> int:
    """Return the revision of the newest state."""
    response = await client.get(PATH, {"limit": "1"})
    metadata: dict[str, Any] = json.loads(response.body)["metadata"]
    return int(metadata["resourceVersion"])
