"""Runs the node's agent, which serves the Services of one source until it is stopped.

start   lock ▶ plane ▶ steering ▶ node ▶ components, in the order of ``components_of``
stop    connections drain, new ones are still served ▶ steering ends ▶ listeners close
        ▶ kernel state is removed ▶ components close, in reverse
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Self

from ..clocks import Clocks
from ..dataplane.calls import IS_COMPILED
from ..diagnosis.judge import diagnose
from ..errors import UserspaceProxyError
from ..facts import PortFacts, StatusFacts, SteeringState
from ..kernel.nf_tables.owned import OwnerSockets
from ..kernel.offers import KernelOffers
from ..kernel.own_namespace import network_namespace
from ..log_fields import FieldLogger
from ..model import SocketAddress
from ..plane import Plane, PortPool
from ..plane.adoption import LAST_ANSWER_S
from ..sources import Source
from ..steering import Steering
from ..steering.selection import read_offers_for
from ..version import __version__
from .components import components_of
from .core import Core
from .hand_over import adopt, worker_label
from .node_setup import (
    keep_owners,
    open_steering,
    prepare_node,
    remove_client_addresses,
    remove_steering,
    start_client_addresses,
    steer_nothing,
)
from .proxy_parts import SourceComponent, facts_of_kernel
from .rounds.component import Component, OwnAddresses
from .rounds.listen_addresses import recovered_addresses
from .rounds.options import Options
from .rounds.tasks import Supervisor, first_of
from .rounds.wall_clock import NEVER, WallClock
from .status_servers import Shown
from .view import prepare_views, view_ports
from .watchers.client_address import ClientAddresses

if TYPE_CHECKING:
    from ..plane.adoption import PreviousWorkers

_log = FieldLogger("userspace_proxy.agent")

# The maximum duration of a drain's last part in seconds: open connections continue, but no new
# connections are accepted.
_WITHOUT_NEW_S = 1.0


class Agent:
    """The agent that serves the Services of one source on this node.

    The agent runs in the event loop that starts it, of asyncio or uvloop.

    Args:
        steering: ``none`` (no privileges: clients dial loopback addresses), ``local``,
            ``nftables``, ``iptables`` or ``auto``; or a :class:`.Steering` that the caller has
            created: then the agent changes nothing else on the node.
        kernel: The kernel's features; None to read them at startup.
    """

    def __init__(
        self,
        steering: str | Steering,
        source: Source,
        options: Options,
        kernel: KernelOffers | None = None,
    ) -> None:
        self.left_behind = False
        """Whether stopping left state in the kernel that couldn't be removed."""
        self._wanted_steering = steering
        self._source = source
        self._options = options
        self._kernel = kernel
        self._supervisor = Supervisor()
        self._stack = contextlib.AsyncExitStack()
        self._stopping = asyncio.Event()
        self._own = OwnAddresses()
        self._components: Sequence[Component] = (SourceComponent(source),)
        self._steering: Steering | None = None
        self._plane: Plane | None = None
        self._previous_workers: PreviousWorkers | None = None
        self._core: Core | None = None
        self._client_addresses: ClientAddresses | None = None
        self._started = NEVER
        self._clock = WallClock()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Start to read and serve Services, until :meth:`stop` is called.

        Returns before the first Services are read: see :meth:`settled`. An unavailable status
        address is reported as a problem by :meth:`status`.

        Raises:
            SourceError: The source's Services can't be read at all.
            LockHeld: Another proxy steers this node.
            SteeringError: The steering can't work here; the hint names a mode that can, if any.
            ListenError: No port of this node is free, or the DNS address isn't available.
        """
        try:
            await self._start()
        except BaseException:
            await self._supervisor.stop()
            # Keep the kernel's state, as after a crash, if a previous process takes the node back.
            if not self._options.is_awaited():
                await self._stop_client_addresses()
                await self._stack.aclose()
            raise

    async def _start(self) -> None:
        options, stack = self._options, self._stack
        self._started = Clocks.monotonic()
        self._source.check()
        pool = PortPool(*options.proxy_ports)
        kernel = self._kernel = self._kernel or read_offers_for(self._wanted_steering)
        steering = open_steering(self._wanted_steering, options, pool, stack, kernel)
        self._steering = steering
        stack.push_async_callback(steering.close)
        label = worker_label(options) if steering.name != "none" else None
        if label is not None:
            self._previous_workers = await adopt(label, stack)
        # Start the workers first, so that they start while this process reads rules.
        plane = self._plane = self._open_plane(steering, label)
        recovered = await steering.start()
        owners = OwnerSockets(self._previous_workers.kept if self._previous_workers else None)
        if steering.name != "none":
            if isinstance(self._wanted_steering, str):
                await prepare_node(steering, options, stack, owners, kernel)
                # Without sockets from previous workers, the ports to which rules steer are closed.
                if self._previous_workers is None or not self._previous_workers.ports:
                    # Open these listeners now: rules already steer to them, and the first plan
                    # takes a second.
                    addresses = recovered_addresses(recovered, steering.bind, pool)
                    plane.recover(addresses, transparent=steering.needs_transparent)
            self._client_addresses = await start_client_addresses(
                options, stack, owners, plane, kernel
            )
        keep_owners(owners, plane)
        core = self._core = Core(
            options=options,
            source=self._source,
            steering=steering,
            is_own_steering=isinstance(self._wanted_steering, str),
            previous_workers=self._previous_workers,
            plane=plane,
            client_addresses=self._client_addresses,
            kernel=kernel,
            recovered=recovered,
            pool=pool,
            health=self._facts,
        )
        shown = Shown(self.status, self._facts, self._refresh)
        self._components = tuple(components_of(core, shown, self._own))
        for component in self._components:
            stack.push_async_callback(component.close)
            await component.start(self._supervisor)
        self._log_start(steering, len(recovered))

    def _log_start(self, steering: Steering, recovered: int) -> None:
        fields = {
            "version": __version__,
            "steering": steering.name,
            "source": self._source.kind,
            "location": self._source.location,
            "recovered": recovered,
            "page": str(SocketAddress(*self.admin_address)) if self.admin_address else "none",
            "dns": str(self.dns_address or "none"),
        }
        _log.info("started", extra=fields)

    def _open_plane(self, steering: Steering, label: str | None) -> Plane:
        plane = Plane(
            asyncio.get_running_loop(),
            self._options.workers,
            self._options.tuning,
            # Keep the capability even if addresses can't be preserved yet, because this may change.
            keeps_net_raw=steering.name != "none" and self._options.preserves_client_address,
            label=label,
            previous_workers=self._previous_workers,
            dialer=self._options.dialer,
        )
        plane.start()
        self._stack.callback(plane.close)
        return plane

    @property
    def admin_address(self) -> tuple[str, int] | None:
        """The address of the status page; None while that address isn't open."""
        return self._own.admin

    @property
    def dns_address(self) -> SocketAddress | None:
        """The address of the DNS server for Services; None while no such server is open."""
        return self._own.dns

    async def stop(self, *, drain_s: float = 0.0) -> None:
        """Stop serving, and remove this proxy's kernel state (see :attr:`left_behind`). Idempotent.

        Args:
            drain_s: Seconds for which open connections may continue; the rest are reset. Until
                shortly before, new connections are served: busy Services always have some.
        """
        self._stopping.set()
        last_s = min(drain_s / 2, _WITHOUT_NEW_S)
        if self._plane is not None:
            await self._plane.idle(drain_s - last_s)
        await self._supervisor.stop()
        # Stop steering first, so that no client is steered to a closed port. Remove the remaining
        # kernel state last, because open connections depend on it.
        if self._steering is not None:
            await steer_nothing(self._steering)
        # End the previous workers only now: before the first round, rules steer clients to them.
        if self._previous_workers is not None:
            self._previous_workers.end()
        if self._core is not None:
            self._core.served_ports.close()
        if self._plane is not None and (reset := await self._plane.drain(last_s)):
            _log.warning(
                "open connections were reset at the end of the drain", extra={"connections": reset}
            )
        steering, self._steering = self._steering, None
        if steering is not None and not await remove_steering(steering):
            self.left_behind = True
        await self._stop_client_addresses()
        await self._wait_for_previous_workers()
        await self._stack.aclose()

    async def _wait_for_previous_workers(self) -> None:
        """Wait up to LAST_ANSWER_S until previous workers have handed over their sockets."""
        previous_workers = self._previous_workers
        if previous_workers is not None and (
            left := await previous_workers.answered(LAST_ANSWER_S)
        ):
            _log.error(
                "previous workers did not hand over their sockets in time, leaving them running",
                extra={"workers": left},
            )

    async def _stop_client_addresses(self) -> None:
        client_addresses, self._client_addresses = self._client_addresses, None
        if client_addresses is not None and not await remove_client_addresses(client_addresses):
            self.left_behind = True

    async def is_awaited(self) -> bool:
        """End the hand-over; return whether the previous process takes the node back at an exit.

        The previous process gets no report after this call, so stop the agent or exit.
        """
        await self._supervisor.stop("hand-over")
        return self._options.is_awaited()

    def abandon(self) -> None:
        """Order the workers to exit; the caller must exit at once, and change no other state."""
        if self._plane is not None:
            self._plane.hang_up()

    async def failed(self) -> UserspaceProxyError:
        """Wait until a background task fails permanently, and return its error."""
        return await self._supervisor.failed()

    async def settled(self) -> None:
        """Wait until everything that the source has published is applied.

        Raises:
            UserspaceProxyError: A background task failed; for example, the source can't be read.
            RuntimeError: The proxy isn't running, or was stopped first.
        """
        settled = self._running().sync.progress.settled()
        outcome = await first_of(self._supervisor.failed(), settled, self._stopping.wait())
        if isinstance(outcome, UserspaceProxyError):
            raise outcome
        if outcome is not None:
            raise RuntimeError("this proxy was stopped before the change was applied")

    def _running(self) -> Core:
        if self._core is None or self._stopping.is_set():
            raise RuntimeError("this proxy isn't running: enter `async with Proxy(…)` first")
        return self._core

    def status(self) -> StatusFacts:
        """Return all facts about this proxy at this moment; without Service ports unless it runs.

        Workers' counters may be a few seconds old; only the status server refreshes them.
        """
        core = self._core
        if core is None or self._steering is None:
            return self._facts()
        facts = self._facts(
            view_ports(core.served_ports, core.plane, core.steering.bind, self._clock)
        )
        facts.health_checks = core.health_checks.facts_of(core.sync.plan)
        checks, dropped = facts.health_checks, facts.dropped
        facts.ports = diagnose(facts.ports, facts.source, checks, dropped=dropped)
        return facts

    def _facts(self, ports: Sequence[PortFacts] = ()) -> StatusFacts:
        options = self._options
        self._clock.tick()
        facts = StatusFacts(
            version=__version__,
            commit=options.commit,
            is_compiled=IS_COMPILED,
            node=options.node_name,
            started=self._clock.unix(self._started),
            steering=SteeringState("none"),
            ports=ports,
            is_accepting=False,
            is_ready=False,
            is_draining=self._stopping.is_set(),
            dropped_log_lines=options.dropped_log_lines(),
            network_namespace=network_namespace(),
        )
        if self._kernel is not None:
            facts.kernel = facts_of_kernel(self._kernel)
        facts.config, facts.given = options.config, options.given
        facts.announcing = options.tuning.proxy_protocol_from
        for component in self._components:
            component.show(facts)
        return facts

    async def _refresh(self) -> float:
        await asyncio.gather(*(component.refresh() for component in self._components))
        core = self._core
        if core is None or self._steering is None:
            return 0.0
        return await prepare_views(core.served_ports, core.plane, core.steering.bind, self._clock)
