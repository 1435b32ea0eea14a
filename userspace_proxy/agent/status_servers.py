"""Opens the status servers of one proxy, and updates their contents.

Timeline, Observation ◀── sync loop, plane      StatusServer ──▶ refresh, status, health
                                 counters ──every 5 s──▲

Rule 1: a proxy serves Services even without these servers, because any user of a node may have
bound their addresses first.
Rule 2: an unavailable address is logged with its holder, and again if the cause changes.

Source: kube-proxy tries both of its addresses again every 5 s (cmd/kube-proxy/app/server.go,
serveHealthz and serveMetrics of 1.36).
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import ListenError
from ..facts import StatusFacts, UnservedFacts, failed_clients
from ..kernel.port_holders import who_holds
from ..log_fields import FieldLogger
from ..logged_condition import LoggedCondition
from ..model import IPFamily, PortKey, Protocol, SocketAddress
from ..plane import Group, Plane
from ..status.history import KEPT_MAX, Counted, Figures
from ..status.listening import ListenAt
from ..status.observing import Observing
from .rounds.component import Component, OwnAddresses
from .rounds.options import Options
from .rounds.served_ports import ServedPorts
from .rounds.sync import SyncLoop
from .rounds.tasks import Supervisor, pause
from .watchers.timeline import Timeline

if TYPE_CHECKING:
    from ..status.server import StatusServer

_log = FieldLogger("userspace_proxy.agent")

_RETRY_S = 5.0
_NOTHING = Figures()


class _Address:
    def __init__(self, bind: ListenAt, serve: Callable[[ListenAt], Awaitable[object]]) -> None:
        self.bind = bind
        self.serve = serve
        self.cause = ""
        """The error of the last attempt to open the address; empty before a failure."""
        self.condition = LoggedCondition[ListenError](
            _log,
            "cannot open status address %(address)s: %(cause)s",
            "status address %(address)s is open",
            fields=lambda e: {"address": _text(bind), "cause": e.cause, "remedy": e.hint},
        )


class StatusAddresses:
    """Opens the addresses of one proxy's status servers, and retries unavailable addresses.

    Args:
        wanted: Pairs of an address (None: disabled) and the function that serves it, which may
            raise ListenError.
    """

    def __init__(
        self, wanted: Iterable[tuple[ListenAt | None, Callable[[ListenAt], Awaitable[object]]]] = ()
    ) -> None:
        self._missing = [_Address(bind, serve) for bind, serve in wanted if bind is not None]

    @property
    def problems(self) -> tuple[ListenError, ...]:
        """The errors of addresses that aren't open."""
        return tuple(problem for address in self._missing for problem in address.condition.now)

    async def open(self) -> None:
        """Try to open the addresses that aren't open."""
        for address in list(self._missing):
            try:
                await address.serve(address.bind)
            except ListenError as exc:
                await self._note(address, exc)
            else:
                self._missing.remove(address)
                address.condition.clear(address=_text(address.bind))

    async def run(self) -> None:
        """Retry until all addresses are open."""
        while self._missing:
            await pause(_RETRY_S)
            await self.open()

    async def _note(self, address: _Address, error: ListenError) -> None:
        if address.cause == str(error):
            return
        address.cause = str(error)
        cause, held_by = error.__cause__, ""
        is_taken = isinstance(cause, OSError) and cause.errno == errno.EADDRINUSE
        if is_taken and isinstance(address.bind, tuple):
            host, port = address.bind
            # Search in a thread, because the search reads the descriptors of all processes.
            holder = await asyncio.to_thread(who_holds, Protocol.TCP, port, IPFamily.of(host))
            held_by = f" by {holder}" if holder else ""
        # Store a copy: the traceback of a raised error keeps its frames' objects alive.
        kept = ListenError(error.message + held_by, hint=error.hint)
        kept.cause = (error.cause or error.message) + held_by
        address.condition.set(kept)


def _text(bind: ListenAt) -> str:
    return str(SocketAddress(*(bind if isinstance(bind, tuple) else bind.getsockname()[:2])))


@dataclass(frozen=True, slots=True)
class Shown:
    """The functions of the agent that the servers call."""

    status: Callable[[], StatusFacts]
    """Returns all facts at this moment."""
    health: Callable[[], StatusFacts]
    """Returns the facts without Service ports."""
    refresh: Callable[[], Awaitable[float]]
    """Updates counters and facts before an answer; returns how many seconds the facts took."""


class PortCounters:
    """The traffic counters of one proxy's Service ports."""

    def __init__(self, served_ports: ServedPorts, plane: Plane) -> None:
        self._served_ports = served_ports
        self._plane = plane
        self._known: dict[PortKey, tuple[int, Figures]] = {}
        """The revision of each port's group, and the port's counters at that revision."""

    async def take(self) -> Counted | None:
        """Return the counters at this moment; None with more than ``KEPT_MAX`` Service ports.

        Requests reports from workers: otherwise, all traffic since their last regular report would
        appear as a burst when a page is opened.

        Cost: 1 µs for a Service port without traffic since the last call, 15 µs for any other.
        """
        if sum(1 for _ in self._served_ports) > KEPT_MAX:
            self._known = {}
            return None
        await self._plane.refresh()
        known, self._known = self._known, {}
        for one in self._served_ports:
            group, key = one.group, one.plan.key
            kept = known.get(key)
            if kept is None or kept[0] != group.revision:
                kept = group.revision, _figures_of(group)
            self._known[key] = kept
        return [(key, figures) for key, (_, figures) in self._known.items()]


def _figures_of(group: Group) -> Figures:
    if not group.has_counted:
        return _NOTHING
    counters, endpoints = group.counters, group.carried()
    return Figures(
        endpoints.connections,
        endpoints.received_bytes,
        endpoints.sent_bytes,
        counters.saved,
        failed_clients(counters, endpoints),
    )


class StatusServers(Component):
    """Serves the status page, the metrics and the answers to probes of one proxy.

    Args:
        own: Receives the open addresses.
        observing: The source of the shown connections and clients.
    """

    def __init__(
        self,
        options: Options,
        plane: Plane,
        sync: SyncLoop,
        counters: PortCounters,
        shown: Shown,
        own: OwnAddresses,
        observing: Observing,
    ) -> None:
        self._options = options
        self._plane = plane
        self._sync = sync
        self._counters = counters
        self._shown = shown
        self._own = own
        self._observing = observing
        self._server: StatusServer | None = None
        self._addresses = StatusAddresses()

    async def start(self, supervisor: Supervisor) -> None:
        """Open the wanted addresses, retry unavailable ones, and record events and history."""
        options, sync, shown, own = self._options, self._sync, self._shown, self._own
        if options.admin is None and options.health is None:
            return
        # Import aiohttp only here, because the import takes half a second.
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
            observing=self._observing,
        )
        sync.on_round = server.sync.observe
        if options.admin is not None:
            supervisor.start("history", lambda: server.record(self._counters.take))

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
        problems = self._addresses.problems
        facts.unserved = [UnservedFacts(one.message, one.hint) for one in problems]

    async def close(self) -> None:
        if self._server is not None:
            await self._server.close()
