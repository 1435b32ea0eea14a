"""Scales workloads from zero and to zero, together with the proxies of all other nodes.

    a first client waits ──▶ Waking
    each second ──▶ NodeLease: reports this node's demand; ends acknowledgements
                ──▶ HolderLease: takes the free Lease; as its holder, sums demand and starts votes
    Lease of the holder, followed ──▶ both

Rule 1: without a Service that names a workload, no Lease is read or written.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping

from ..clocks import Clocks
from ..errors import UserspaceProxyError
from ..facts import StatusFacts
from ..log_fields import FieldLogger
from ..logged_condition import LoggedCondition
from ..model import ServiceKey
from ..pacing import backoff_s
from ..scaling.cordons import Cordons
from ..scaling.holder_lease import HolderLease
from ..scaling.lease_notes import HOLDER, read_counts
from ..scaling.node_lease import NodeLease
from ..scaling.usage import Usage
from ..scaling.waking import Waking
from ..sources.base import Leases
from ..state_file import file_of_proxy
from ..steering import proxy_label
from .core import Core
from .rounds.component import Component
from .rounds.tasks import Supervisor, pause

_log = FieldLogger("userspace_proxy.agent")

_LOOK_S = 1.0
# The interval of checks while no Service names a workload.
_UNUSED_S = 5.0
# The longest pause between retries. At this rate, even thousands of nodes whose role forbids Leases
# don't load the API server.
_RETRY_S = 60.0
# The maximum time for which dials in progress delay an acknowledgement, while new clients wait.
_SETTLE_MAX_S = 5.0


class Scaling(Component):
    """One proxy's part in scaling: wakes workloads, reports demand to the Lease's holder."""

    def __init__(self, core: Core, *, clock: Callable[[], float] = Clocks.monotonic) -> None:
        options, served_ports, source = core.options, core.served_ports, core.source
        self._usage = Usage(served_ports)
        proxy_name = options.proxy_name or ""
        file = file_of_proxy(options.state_dir, "cordons.json", proxy_label(proxy_name))
        cordons = Cordons(served_ports, file)
        self._waking = Waking(
            core.plane,
            served_ports,
            source,
            core.services,
            self._usage,
            cordons,
            is_allowed=options.allow_wake,
        )
        shared = source.leases(options.node_name, proxy_name)
        self._resting = (
            _Resting(core, shared, self._usage, cordons, self._waking, clock)
            if options.allow_wake and shared is not None
            else None
        )

    async def start(self, supervisor: Supervisor) -> None:
        """Start to watch waiting clients, report demand, take a free Lease, and watch the Lease.

        Acknowledgements of the previous process are restored before any Service is served.
        """
        if self._resting is not None:
            await self._resting.restore()
        supervisor.start("waking", self._waking.run)
        for name, run in self._resting.tasks() if self._resting else ():
            supervisor.start(name, run)

    def show(self, facts: StatusFacts) -> None:
        facts.demand = self._usage.demand()
        facts.cluster_demand = self._resting.demand if self._resting else None


class _Resting:
    """The contribution of one proxy to scaling workloads to zero."""

    def __init__(
        self,
        core: Core,
        leases: Leases,
        usage: Usage,
        cordons: Cordons,
        waking: Waking,
        clock: Callable[[], float],
    ) -> None:
        self._core = core
        self._leases = leases
        self._cordons = cordons
        self._clock = clock
        self._has_old_workers = bool(core.previous_workers)
        self._relieved_at: float | None = None
        self._failing: dict[object, str] = {}
        """The cause of each task that fails now."""
        self._condition = LoggedCondition[str](
            _log,
            "workloads are not scaled to zero: %(cause)s",
            "workloads can be scaled to zero again",
        )
        self._node = NodeLease(
            leases,
            usage,
            cordons,
            refresh=core.plane.refresh,
            is_known=self.is_known,
            hurry=waking.hurry,
            settle_s=min(core.options.tuning.connect_timeout_s, _SETTLE_MAX_S),
        )
        self._holder = HolderLease(leases, usage, core.served_ports, core.source, core.services)

    @property
    def demand(self) -> Mapping[ServiceKey, int] | None:
        """The demand of all nodes; None if it is unknown, or no Service names a workload."""
        return self._holder.demand if self._is_wanted() else None

    async def restore(self) -> None:
        """Restore the acknowledgements of the previous process."""
        await self._node.restore()

    def tasks(self) -> Iterator[tuple[str, Callable[[], Awaitable[None]]]]:
        """Yield the background tasks with their names."""
        yield "clients that wait for a round", self._release
        yield "lease of the node", lambda: self._repeat(self._report)
        yield "lease of the holder", lambda: self._repeat(self._holder.look)
        yield "rounds of the holder", lambda: self._repeat(self._follow)

    async def _repeat(self, step: Callable[[], Awaitable[None]]) -> None:
        """Repeat a step every second while a Service names a workload; back off while it fails."""
        failures = 0
        while True:
            if not self._is_wanted():
                await pause(_UNUSED_S)
                continue
            began = self._clock()
            try:
                await step()
            except UserspaceProxyError as exc:
                self._note(step, str(exc))
                # Retry soon if the step failed only after a while: a vote may be in progress.
                has_worked = self._clock() - began > _RETRY_S
                failures = 0 if has_worked else failures + 1
            else:
                self._note(step)
                failures = 0
            await pause(backoff_s(failures + 1, _LOOK_S, _RETRY_S))

    def _note(self, step: Callable[[], Awaitable[None]], cause: str = "") -> None:
        """Record whether a task fails, and why; the condition ends once none fails."""
        self._failing[step] = cause
        self._condition.set(*dict.fromkeys(self._failing.values()))

    async def _release(self) -> None:
        """End expired acknowledgements, even without an API server or any Service."""
        while True:
            self._cordons.release_late()
            await pause(_LOOK_S)

    async def _report(self) -> None:
        """Report this node's demand, according to the workers' last reports."""
        self._core.plane.settle()
        await self._node.look()

    async def _follow(self) -> None:
        """Watch the holder's Lease until the server ends the watch."""
        async for lease in self._leases.follow(HOLDER):
            self._note(self._follow)
            self._holder.see(lease)
            await self._node.follow(read_counts(lease).round)

    def _is_wanted(self) -> bool:
        return self._core.sync.progress.is_synced and any(
            served.plan.serving.handling.wake is not None
            for served in self._core.served_ports.holding
        )

    def is_known(self) -> bool:
        """Return whether this process counts all connections through this node's proxy.

        Workers of the previous process don't report. Once none is left, this returns False for
        another ``previous_drain_s``, from the first call on.
        """
        if not self._has_old_workers:
            return True
        if self._core.previous_workers:
            return False
        now = self._clock()
        self._relieved_at = now if self._relieved_at is None else self._relieved_at
        return now - self._relieved_at >= self._core.options.previous_drain_s
