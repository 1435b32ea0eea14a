"""In-memory Leases, with the same contract as Leases on an API server."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from userspace_proxy.errors import SourceError
from userspace_proxy.sources.base import Leases


class LeaseStore:
    """The Leases that the proxies of several nodes share.

    Args:
        nodes: The Nodes of the cluster.
    """

    def __init__(self, *nodes):
        self.nodes = set(nodes)
        self.leases = {}
        self.writes = []
        """The names of written Leases."""
        self.failure = ""
        self._version = 0
        self._changed = asyncio.Condition()

    def at(self, node):
        """Return the Leases of a node's proxy."""
        return SharedLeases(self, node)

    async def put(self, lease):
        self._version += 1
        written = replace(lease, version=str(self._version))
        self.leases[lease.name] = written
        self.writes.append(lease.name)
        async with self._changed:
            self._changed.notify_all()
        return written

    async def until(self, condition):
        async with self._changed:
            await self._changed.wait_for(condition)


class SharedLeases(Leases):
    """The Leases of one proxy."""

    def __init__(self, store, node):
        self.store = store
        self.node_name = node

    async def read(self, name):
        self._check()
        return self.store.leases.get(name)

    async def write(self, lease):
        self._check()
        have = self.store.leases.get(lease.name)
        if (have.version if have else "") != lease.version:
            return None
        return await self.store.put(lease)

    async def read_all(self):
        self._check()
        return [*self.store.leases.values()]

    async def follow(self, name):
        self._check()
        seen = [None]
        while True:
            await self.store.until(lambda: self.store.leases.get(name) is not seen[-1])
            seen.append(self.store.leases[name])
            yield seen[-1]

    async def nodes(self):
        self._check()
        return frozenset(self.store.nodes)

    def _check(self):
        if self.store.failure:
            raise SourceError(self.store.failure)
