"""Opens the status servers of one proxy, and keeps what they show up to date.

Timeline ◀── sync loop, plane          StatusServer ──▶ refresh, status, health
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

from ..errors import ListenError
from ..plane import Plane
from ..status.listening import ListenAt
from ..status.view import StatusView
from .options import Options
from .status_addresses import StatusAddresses
from .sync import SyncLoop
from .tasks import Supervisor
from .timeline import Timeline


class StatusServers:
    """The page, the metrics and the answers to probes of one proxy.

    Args:
        status: Returns everything at this moment.
        health: Likewise, without Service ports.
    """

    def __init__(self, status: Callable[[], StatusView], health: Callable[[], StatusView]) -> None:
        self.admin_address: tuple[str, int] | None = None
        """Where the page answers; None while it doesn't."""
        self.health_address: tuple[str, int] | None = None
        """Where ``/healthz`` answers; None while it doesn't."""
        self._status = status
        self._health = health
        self._addresses = StatusAddresses()

    @property
    def problems(self) -> tuple[ListenError, ...]:
        """Why some addresses aren't open."""
        return self._addresses.problems

    async def open(
        self,
        options: Options,
        plane: Plane,
        sync: SyncLoop,
        refresh: Callable[[], Awaitable[None]],
        supervisor: Supervisor,
        stack: AsyncExitStack,
    ) -> None:
        """Open the addresses that the options contain.

        Args:
            refresh: Brings counters up to date; awaited before each answer that has counters.
            supervisor: Runs what follows the proxy.
            stack: Closes the servers.
        """
        if options.admin is None and options.health is None:
            return
        # aiohttp takes half a second to import.
        from ..status.server import StatusServer

        timeline = Timeline(plane, self._health)
        sync.on_plan, sync.on_switch = timeline.note_plan, timeline.note_switches
        supervisor.start("timeline", timeline.run)
        server = StatusServer(
            self._status,
            options.metrics_detail,
            health=self._health,
            refresh=refresh,
            events=timeline.events,
        )
        sync.on_round = server.sync.observe
        stack.push_async_callback(server.close)

        async def serve_admin(bind: ListenAt) -> None:
            self.admin_address = await server.serve_admin(bind)

        async def serve_health(bind: ListenAt) -> None:
            self.health_address = await server.serve_health(bind)

        self._addresses = StatusAddresses(
            ((options.admin, serve_admin), (options.health, serve_health))
        )
        await self._addresses.open()
        supervisor.start("status addresses", self._addresses.run)
