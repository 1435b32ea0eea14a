"""Opens the status servers of one proxy, and keeps what they show up to date.

Timeline ◀── sync loop, plane          StatusServer ──▶ refresh, status, health
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..facts import StatusFacts, UnservedFacts
from ..plane import Plane
from ..status.listening import ListenAt
from .rounds.component import Component, OwnAddresses
from .rounds.options import Options
from .rounds.sync import SyncLoop
from .rounds.tasks import Supervisor
from .status_addresses import StatusAddresses
from .watchers.timeline import Timeline

if TYPE_CHECKING:
    from ..status.server import StatusServer


@dataclass(frozen=True, slots=True)
class Shown:
    """What the servers ask the agent for."""

    status: Callable[[], StatusFacts]
    """Returns everything at this moment."""
    health: Callable[[], StatusFacts]
    """Likewise, without Service ports."""
    refresh: Callable[[], Awaitable[None]]
    """Brings counters up to date; awaited before each answer that has counters."""


class StatusServers(Component):
    """The page, the metrics and the answers to probes of one proxy.

    Args:
        options: Have the addresses that are wanted.
        own: The open ones are noted there.
    """

    def __init__(
        self,
        options: Options,
        plane: Plane,
        sync: SyncLoop,
        shown: Shown,
        own: OwnAddresses,
    ) -> None:
        self._options = options
        self._plane = plane
        self._sync = sync
        self._shown = shown
        self._own = own
        self._server: StatusServer | None = None
        self._addresses = StatusAddresses()

    async def start(self, supervisor: Supervisor) -> None:
        """Open the addresses; those that aren't available are retried."""
        options, sync, shown, own = self._options, self._sync, self._shown, self._own
        if options.admin is None and options.health is None:
            return
        # aiohttp takes half a second to import.
        from ..status.server import StatusServer

        timeline = Timeline(self._plane, shown.health)
        sync.planning.on_plan, sync.rules.on_switch = timeline.note_plan, timeline.note_switches
        supervisor.start("timeline", timeline.run)
        server = self._server = StatusServer(
            shown.status,
            options.metrics_detail,
            health=shown.health,
            refresh=shown.refresh,
            events=timeline.events,
        )
        sync.on_round = server.sync.observe

        async def serve_admin(bind: ListenAt) -> None:
            own.admin = await server.serve_admin(bind)

        async def serve_health(bind: ListenAt) -> None:
            own.health = await server.serve_health(bind)

        self._addresses = StatusAddresses(
            ((options.admin, serve_admin), (options.health, serve_health))
        )
        await self._addresses.open()
        supervisor.start("status addresses", self._addresses.run)

    def show(self, facts: StatusFacts) -> None:
        """Part of Component."""
        problems = self._addresses.problems
        facts.unserved = [UnservedFacts(one.message, one.hint) for one in problems]

    async def close(self) -> None:
        """Part of Component."""
        if self._server is not None:
            await self._server.close()
