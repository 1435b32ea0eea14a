"""Has the rounds follow the addresses of names that Services have as endpoints.

    source ──▶ derive ──▶ rounds ◀── lookups (``lookup.endpoint_lookups``)
    kernel ──addresses of this node──▶ judged again ──▶ rounds

Without ``--allow-endpoint-names`` nothing is looked up, and no module for DNS imported.
"""

from __future__ import annotations

import asyncio

from ...cluster import Snapshot
from ...cluster.forbidden import ClusterNetworks, ForbiddenAddresses
from ...kernel.interface_addresses import NodeAddresses
from ...kernel.own_addresses import OwnAddressCheck
from ...lookup.endpoint_lookups import EndpointLookups
from ..rounds.component import Component
from ..rounds.options import Options
from ..rounds.sync import SyncLoop
from ..rounds.tasks import Supervisor, first_of, pause

WORKERS = 8
"""Names that are looked up at the same time, each for five seconds at most."""


class EndpointNames(Component):
    """The names that the Services of one proxy have as endpoints."""

    def __init__(self, sync: SyncLoop, source_kind: str, options: Options) -> None:
        networks = ClusterNetworks(
            options.cluster_networks,
            options.service_cluster_ip_range,
            is_shared=source_kind == "kubernetes",
        )
        self._sync = sync
        self._is_on = bool(options.allow_endpoint_names)
        self._lookups = EndpointLookups(
            options.allow_endpoint_names,
            ForbiddenAddresses(networks, OwnAddressCheck().has),
            sync.publish,
            wait=lambda event, seconds: first_of(event.wait(), pause(seconds)),
        )
        self._addresses: NodeAddresses | None = None

    async def start(self, supervisor: Supervisor) -> None:
        """Look names up, where the options allow any."""
        if self._is_on:
            loop, look_again = asyncio.get_running_loop(), self._lookups.look_again
            self._addresses = NodeAddresses(loop, look_again)
            for number in range(WORKERS):
                supervisor.start(f"endpoint names {number}", self._lookups.work)
        if (last := self._sync.progress.latest) is not None:
            # The last state on disk, in which names may be that aren't allowed any more.
            self._sync.publish(self.derive(last))

    def derive(self, snapshot: Snapshot) -> Snapshot:
        """Return a snapshot of the source with what is known of names."""
        return self._lookups.derive(snapshot)

    async def close(self) -> None:
        """Part of Component."""
        if self._addresses is not None:
            self._addresses.close()
