"""Resolves host names that Services have as endpoints, and passes the addresses to the rounds.

    source ──▶ lookups (``lookup.endpoint_lookups``), in steps ──▶ rounds
    kernel ──addresses of this node──▶ addresses checked again ──▶ rounds

Without ``--allow-endpoint-names`` nothing is looked up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ...cluster import Snapshot
from ...cluster.forbidden import ClusterNetworks, ForbiddenAddresses
from ...cluster.host_queue import SLOTS
from ...kernel.interface_addresses import NodeAddresses, OwnAddressCheck
from ...lookup.endpoint_lookups import EndpointLookups
from ..rounds.component import Component
from ..rounds.options import Options
from ..rounds.sync import SyncLoop
from ..rounds.tasks import Pace, Supervisor, first_of, pause


class EndpointNames(Component):
    """Resolves the host names that the Services of one proxy have as endpoints.

    Args:
        publish: Receives each snapshot that is derived from a snapshot of the source.
    """

    def __init__(
        self,
        sync: SyncLoop,
        publish: Callable[[Snapshot], None],
        source_kind: str,
        options: Options,
    ) -> None:
        networks = ClusterNetworks(
            options.cluster_networks,
            options.service_cluster_ip_range,
            is_shared=source_kind == "kubernetes",
        )
        self._progress = sync.progress
        self._deliver: Callable[[Snapshot], None] = sync.publish
        self._publish_source = publish
        self._is_on = bool(options.allow_endpoint_names)
        self._lookups = EndpointLookups(
            options.allow_endpoint_names,
            ForbiddenAddresses(networks, OwnAddressCheck().has),
            self._publish,
            turn=Pace().turn,
            wait=lambda event, seconds: first_of(event.wait(), pause(seconds)),
        )
        self._addresses: NodeAddresses | None = None
        sync.progress.is_expecting = lambda: self._lookups.is_behind

    async def start(self, supervisor: Supervisor) -> None:
        if self._is_on:
            loop, look_again = asyncio.get_running_loop(), self._lookups.look_again
            self._addresses = NodeAddresses(loop, look_again)
            for number in range(SLOTS):
                supervisor.start(f"endpoint names {number}", self._lookups.work)
        if (last := self._progress.latest) is not None:
            # The snapshot may be the saved state on disk, with names that are no longer allowed, so
            # derive it again.
            self._lookups.take(last)
            await self._lookups.derive()
        supervisor.start("endpoints by name", self._lookups.follow)

    def publish(self, snapshot: Snapshot) -> None:
        """Take the source's snapshot; it is published later, with host names resolved."""
        self._deliver = self._publish_source
        self._lookups.take(snapshot)

    async def _publish(self, snapshot: Snapshot) -> None:
        self._deliver(snapshot)
        await self._progress.announce()

    async def close(self) -> None:
        if self._addresses is not None:
            self._addresses.close()
