"""Computes digests of the API server's contents, comparable to those of agents' plans.

    Services, EndpointSlices ──list, watch──▶ Store ──▶ Digests ◀──compared── agents

Rule 1: objects are read as agents read them, but with the user's rights. A user without these
rights gets no digests.
Rule 2: an unreadable object is omitted, because agents keep the last version that they could read.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable, Mapping, Sequence

from userspace_proxy.clocks import Clocks
from userspace_proxy.cluster import Store
from userspace_proxy.errors import UserspaceProxyError
from userspace_proxy.plan.digest import Digests
from userspace_proxy.sources.base import Pause, pause
from userspace_proxy.sources.kubernetes.client import ApiClient
from userspace_proxy.sources.kubernetes.reflector import Reflector, Timing
from userspace_proxy.sources.kubernetes.resources import SERVICES, SLICES, ResourceCache
from userspace_proxy.sources.kubernetes.shares import ObjectShares

_KEPT = 1000
"""The number of former digests that are kept."""


class Plans:
    """The digests that this machine computes from the API server's objects.

    Args:
        client: The API server's client, open.
        unix: Returns Unix time.
    """

    def __init__(
        self,
        client: ApiClient,
        *,
        unix: Callable[[], float] = Clocks.time,
        clock: Callable[[], float] = Clocks.monotonic,
        pause: Pause = pause,
    ) -> None:
        self._client = client
        self._unix = unix
        self._clock = clock
        self._store = Store()
        self._changed = asyncio.Event()
        self._caches = [
            ResourceCache(kind, self._store, ObjectShares()) for kind in (SERVICES, SLICES)
        ]
        self._reflectors = [
            Reflector(
                cache,
                client,
                self._changed.set,
                timing=Timing(),
                rng=random.Random(),
                clock=clock,
                pause=pause,
            )
            for cache in self._caches
        ]
        self._digests = Digests()
        self.summary: tuple[str, Sequence[str]] = self._digests.summary
        """The digest of all Services, and the digest of each bucket."""
        self._former: deque[tuple[str, float]] = deque(maxlen=_KEPT)
        """Former digests of all Services, each with monotonic seconds until which it was valid."""
        self._merged: Mapping[str, str] | None = None
        self.ready = asyncio.Event()
        """Set once digests exist, or can't be computed."""
        self.planned_at = 0.0
        """Unix time at which the digests were last computed; 0 if there are none."""

    @property
    def digests(self) -> Mapping[str, str] | None:
        """Each Service's digest, by ``namespace/name``; None if there are none."""
        if self._merged is None and self.planned_at:
            buckets = self._digests.buckets
            self._merged = {name: one for bucket in buckets for name, one in bucket.items()}
        return self._merged

    @property
    def unread(self) -> frozenset[str]:
        """Services that have an unreadable object."""
        rejected = (one for cache in self._caches for one in cache.rejected.values())
        return frozenset(name for one in rejected for name in one.services)

    def had(self, digest: str, within_s: float) -> bool:
        """Return whether a digest of all Services is current, or was ``within_s`` seconds ago."""
        since = self._clock() - within_s
        return digest == self.summary[0] or any(
            digest == former and ended >= since for former, ended in reversed(self._former)
        )

    async def run(self) -> None:
        """Read until cancelled; return at once if reading isn't permitted."""
        if not await self._is_permitted():
            self.ready.set()
            return
        async with asyncio.TaskGroup() as group:
            for reflector in self._reflectors:
                group.create_task(reflector.run())
            while True:
                await self._changed.wait()
                self._changed.clear()
                if all(reflector.is_listed for reflector in self._reflectors):
                    await self._update()

    async def _update(self) -> None:
        before = self.summary[0] if self.planned_at else ""
        services = self._store.snapshot().services
        # Use a thread: the first computation takes a fraction of a second for 10,000 Services.
        await asyncio.to_thread(self._digests.follow, services)
        # Assign only now: while the thread computes, the previous digest must stay known.
        self.summary = self._digests.summary
        if before and before != self.summary[0]:
            self._former.append((before, self._clock()))
        self._merged = None
        self.planned_at = self._unix()
        self.ready.set()

    async def _is_permitted(self) -> bool:
        try:
            answers = [
                await self._client.get(cache.resource.path, {"limit": "1"})
                for cache in self._caches
            ]
        except UserspaceProxyError:
            return False
        return all(answer.code == 200 for answer in answers)
