"""The contract of Leases in memory, on a fake API server, and on a real API server.

A module that runs it defines ``TestContract(LeasesContract)`` and a fixture ``leases_of``, which
returns the Leases of a node's proxy. The cluster has the Nodes NODES.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

from userspace_proxy.sources.base import Lease, Leases

NODES = frozenset({"node-1", "node-2"})
LeasesOf = Callable[[str], Leases]


class LeasesContract:
    async def test_reading_a_nonexistent_lease_returns_none(self, leases_of: LeasesOf) -> None:
        assert await leases_of("node-1").read("absent") is None

    async def test_another_node_can_read_a_written_lease(self, leases_of: LeasesOf) -> None:
        wanted = Lease("node.node-1", "node-1", {"demand": '{"shop/web": 3}'})
        written = await leases_of("node-1").write(wanted)
        assert written is not None
        assert replace(written, version="") == wanted
        assert await leases_of("node-2").read("node.node-1") == written

    async def test_only_the_first_of_two_writers_creates_a_lease(self, leases_of: LeasesOf) -> None:
        assert await leases_of("node-1").write(Lease("one", "node-1")) is not None
        assert await leases_of("node-2").write(Lease("one", "node-2")) is None
        read = await leases_of("node-1").read("one")
        assert read is not None
        assert read.holder == "node-1"

    async def test_only_the_first_of_two_updates_of_a_version_succeeds(
        self, leases_of: LeasesOf
    ) -> None:
        first = await leases_of("node-1").write(Lease("two", "node-1"))
        assert first is not None
        second = await leases_of("node-2").write(replace(first, holder="node-2"))
        assert second is not None
        assert await leases_of("node-1").write(first) is None
        third = await leases_of("node-1").write(replace(second, notes={"demand": "{}"}))
        assert third is not None
        assert (third.holder, third.notes) == ("node-2", {"demand": "{}"})

    async def test_all_leases_are_listed(self, leases_of: LeasesOf) -> None:
        one = await leases_of("node-1").write(Lease("node.node-1", "a"))
        other = await leases_of("node-2").write(Lease("node.node-2", "b"))
        wanted = {"node.node-1": one, "node.node-2": other}
        # A list comes from the server's cache, which may be slightly outdated.
        async with asyncio.timeout(60):
            while True:
                listed = await leases_of("node-1").read_all()
                if {one.name: one for one in listed if one.name.startswith("node.")} == wanted:
                    break

    async def test_following_a_lease_starts_with_its_current_state(
        self, leases_of: LeasesOf
    ) -> None:
        first = await leases_of("node-1").write(Lease("holder", "node-1"))
        assert first is not None
        followed = leases_of("node-2").follow("holder")
        assert await anext(followed) == first
        second = await leases_of("node-1").write(replace(first, notes={"round": "{}"}))
        assert await anext(followed) == second
        await followed.aclose()  # type: ignore[attr-defined]

    async def test_all_nodes_of_the_cluster_are_listed(self, leases_of: LeasesOf) -> None:
        assert await leases_of("node-1").nodes() == NODES
