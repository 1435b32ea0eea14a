"""On one elected node, adds up all nodes' demand, and scales workloads without clients to zero.

    Leases of nodes ──▶ sums ──▶ Lease of the holder, which all nodes follow
    no demand, for idle-after ──▶ the source reads the workload ──▶ round: all nodes vote
    ──▶ all have answered that they have no clients and hold new clients ──▶ scaled to zero

Rule 1: the Lease's holder requests a vote, and all nodes of the cluster must answer; otherwise, the
workload counts as busy.
Rule 2: a Lease that wasn't renewed for DURATION_S, by this node's own clock, is free.
Rule 3: nodes vote on the Services that name a workload and may scale it (``rights``); any other
Service that selects the workload's pods keeps it running. A Service that names the workload without
the right to scale it has no effect.
Rule 4: workloads are scaled one at a time, namespaces in turn; a workload that can't be scaled to
zero is checked again after its idle-after, or after AGAIN_MAX_S if that is shorter.
"""

from __future__ import annotations

import contextlib
import random
import uuid
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from operator import itemgetter

from ..clocks import Clocks
from ..errors import SourceError
from ..log_fields import FieldLogger
from ..model import ServiceKey, Workload
from ..sources import Happening, Source
from ..sources.base import DURATION_S, Labels, Lease, Leases, Pause, ScaleDown, pause
from ..turns import Turns
from .lease_notes import (
    HOLDER,
    NODE_PREFIX,
    ROUND_BYTES_MAX,
    NodeReport,
    Vote,
    VoteCounts,
    read_counts,
    read_report,
    whole,
    write_counts,
)
from .node_lease import BEAT_S
from .rights import Services, other_user, refusal_reason, selector_of
from .served import Served, ServedByName, WorkloadKey, ready_endpoints, workload_of
from .usage import Usage

_log = FieldLogger("userspace_proxy.agent")

_RENEW_S = 15.0
# The maximum random delay before taking the Lease: when thousands of nodes find it free, only a few
# try at once.
_JITTER_S = 10.0
TOO_OLD_S = 2.5 * BEAT_S
"""If a node's report hasn't changed for this long, its demand counts as unknown."""
# The minimum interval between two reads of all reports, and the interval per report: a second per
# 100 reports spares the API server.
_LOOK_S, _LOOK_FOR_EACH_S = 2.0, 0.01
# The same two intervals for lists of Nodes, which are large.
_NODES_S, _NODES_FOR_EACH_S = 60.0, 0.1
# The time limit for the answers of all nodes, each of which takes a second, and the interval at
# which they are read.
_ANSWERS_S, _ANSWERS_EVERY_S = 8.0, 0.25
AGAIN_MAX_S = 60.0


@dataclass(slots=True)
class _Known:
    """The last report of a node."""

    version: str
    changed_at: float
    """When this process first read that version, in monotonic seconds."""
    report: NodeReport


@dataclass(slots=True)
class _ScaleDownAttempt:
    """One attempt to scale a workload to zero."""

    workload: Workload
    ports: Collection[Served]
    """Ports of Services that name the workload and, once its labels are known, may scale it."""
    round: Vote = field(default_factory=lambda: Vote(str(uuid.uuid4()), ()))
    """The vote on the Services that may scale it."""
    labels: Labels = field(default_factory=dict)
    """Labels that all pods of the workload have."""
    strangers: dict[ServiceKey, str] = field(default_factory=dict)
    """For each other Service, why it may not scale the workload."""


class HolderLease:
    """The Lease of the node that adds up the demand of all nodes.

    Args:
        source: Scales workloads, and records Events for users of a Service.
        services: Returns all Services of the cluster.
        identity: This process's identity; empty to generate one.
    """

    def __init__(
        self,
        leases: Leases,
        usage: Usage,
        served_ports: ServedByName,
        source: Source,
        services: Callable[[], Services],
        *,
        identity: str = "",
        clock: Callable[[], float] = Clocks.monotonic,
        pause: Pause = pause,
        rng: random.Random | None = None,
    ) -> None:
        self._leases = leases
        self._usage = usage
        self._served_ports = served_ports
        self._source = source
        self._services = services
        self._identity = identity or f"{leases.node_name}_{uuid.uuid4()}"
        self._clock = clock
        self._pause = pause
        self._jitter_s = (rng or random.Random()).uniform(0, _JITTER_S)
        self._lease: Lease | None = None
        """The Lease as last read or written."""
        self._changed_at = clock()
        self._vote_counts = self._shown = VoteCounts()
        """The counts that this process writes as the holder, and the counts in the current
        Lease."""
        self._known: dict[str, _Known] = {}
        self._nodes: frozenset[str] = frozenset()
        self._nodes_at = self._looked_at = float("-inf")
        self._again_at: dict[WorkloadKey, float] = {}
        self._turns = Turns[str]()
        """Turns of the namespaces."""
        self._awake_reasons: dict[ServiceKey, str] = {}
        """Why workloads aren't scaled to zero, by the Service that names the workload."""

    @property
    def is_held(self) -> bool:
        """Whether this process holds the Lease."""
        return (
            self._lease is not None
            and self._lease.holder == self._identity
            and self._clock() - self._changed_at < DURATION_S
        )

    @property
    def demand(self) -> Mapping[ServiceKey, int] | None:
        """The demand of all nodes for each Service that holds connections; None if unknown.

        While the demand of a node is unknown, each Service has a demand of at least 1.
        """
        if self._lease is None or self._clock() - self._changed_at >= DURATION_S:
            return None
        vote_counts = self._shown
        if vote_counts.demand is None:
            return None
        least, own = int(bool(vote_counts.unknown)), self._usage.demand()
        return {key: max(least, _demand_of(key, vote_counts)) for key in own}

    def see(self, lease: Lease) -> None:
        """Take a Lease from the watch; ignore the holder's own writes, which arrive late."""
        if self.is_held and lease.holder == self._identity:
            return
        if self._lease is None or lease.version != self._lease.version:
            self._lease, self._changed_at = lease, self._clock()
            self._shown = read_counts(lease)

    async def look(self) -> None:
        """Renew the Lease, or take it if it is free; as its holder, do the work that is due.

        Call it about once a second.

        Raises:
            SourceError: A read or write failed.
        """
        now = self._clock()
        if not self.is_held:
            await self._try_to_take(now)
            return
        if now - self._changed_at >= _RENEW_S:
            await self._write(self._vote_counts)
        every_s = max(_LOOK_S, _LOOK_FOR_EACH_S * len(self._known))
        if now - self._looked_at >= every_s:
            self._looked_at = now
            await self._add_up(now)
            await self._scale_one_down(now)

    async def _try_to_take(self, now: float) -> None:
        if self._lease is None:
            self._lease = await self._leases.read(HOLDER)
            self._changed_at = now
            if self._lease is None:
                await self._write(VoteCounts(), Lease(HOLDER))
        elif now - self._changed_at >= DURATION_S + self._jitter_s:
            self._known.clear()
            self._looked_at = now
            await self._write(VoteCounts(), self._lease)

    async def _write(self, vote_counts: VoteCounts, lease: Lease | None = None) -> bool:
        """Write the Lease as its holder; return whether this process holds it now.

        Args:
            lease: A free Lease to take; None to write the Lease that this process holds.
        """
        if lease is None and self.is_held:
            lease = self._lease
        if lease is None:
            return False
        wanted = replace(lease, holder=self._identity, notes=write_counts(vote_counts))
        written = await self._leases.write(wanted)
        if written is None:
            # Another process wrote the Lease first: read it again.
            self._lease = None
            return False
        self._lease, self._changed_at = written, self._clock()
        self._vote_counts = self._shown = vote_counts
        return True

    async def _list(self, now: float) -> None:
        known: dict[str, _Known] = {}
        for lease in await self._leases.read_all():
            if lease.name.startswith(NODE_PREFIX):
                name = lease.name.removeprefix(NODE_PREFIX)
                before = self._known.get(name)
                if before is None or before.version != lease.version:
                    before = _Known(lease.version, now, read_report(lease))
                known[name] = before
        self._known = known

    async def _add_up(self, now: float) -> None:
        """Add up demand; write the sums if their Services, or the unknown node, have changed."""
        await self._list(now)
        if now - self._nodes_at >= max(_NODES_S, _NODES_FOR_EACH_S * len(self._nodes)):
            self._nodes, self._nodes_at = await self._leases.nodes(), now
        sums: dict[ServiceKey, int] = defaultdict(int)
        for name in self._asked(now) & self._known.keys():
            for key, count in (self._known[name].report.demand or {}).items():
                sums[key] += count
        unknown = next(iter(sorted(self._unknown(now))), "")
        before = self._vote_counts
        if (before.demand is None or sums.keys() != before.demand.keys()) or (
            unknown != before.unknown
        ):
            await self._write(VoteCounts(dict(sums), unknown, before.round))
        else:
            # The next renewal writes the sums.
            self._vote_counts = before._replace(demand=dict(sums))

    def _asked(self, now: float) -> frozenset[str]:
        """Return the names of all Nodes, and of nodes that report, but weren't listed yet."""
        recent = (n for n, known in self._known.items() if now - known.changed_at < TOO_OLD_S)
        return self._nodes.union(recent)

    def _unknown(self, now: float) -> frozenset[str]:
        """Return the nodes whose last report is missing, outdated or without demand."""
        return frozenset(
            node
            for node in self._asked(now)
            if (known := self._known.get(node)) is None
            or known.report.demand is None
            or now - known.changed_at >= TOO_OLD_S
        )

    async def _scale_one_down(self, now: float) -> None:
        """Try to scale the first due workload without demand to zero."""
        if self._vote_counts.unknown or not self.is_held:
            return
        workloads: dict[WorkloadKey, list[Served]] = defaultdict(list)
        for served in self._served_ports.holding:
            if (workload := workload_of(served)) is not None:
                workloads[workload].append(served)
        self._again_at = {key: at for key, at in self._again_at.items() if key in workloads}
        named = {port.plan.key.name.service for ports in workloads.values() for port in ports}
        self._awake_reasons = {key: why for key, why in self._awake_reasons.items() if key in named}
        due: list[WorkloadKey] = []
        # Workloads that were never tried come first, then workloads that have been due for longest.
        for key in sorted(workloads, key=lambda key: self._again_at.get(key, 0.0)):
            ports = [port for port in workloads[key] if not self._has_demand(port)]
            if not _may_scale_down(ports):
                self._note(dict.fromkeys(map(_service_of, workloads[key]), ""))
            elif now >= self._again_at.get(key, now):
                due.append(key)
        for key in self._turns.order(due, itemgetter(0)):
            await self._scale_down(key, workloads[key])
            return

    def _has_demand(self, served: Served) -> bool:
        return bool(_demand_of(_service_of(served), self._vote_counts))

    async def _scale_down(self, key: WorkloadKey, ports: Collection[Served]) -> None:
        asking, scale_down = _ScaleDownAttempt(key[1], ports), ScaleDown()

        async def agree() -> bool:
            nonlocal scale_down
            # From here on, the update may take place even if this process is interrupted, so store
            # the answer for the handler below.
            scale_down = ScaleDown(
                is_asleep=await self._ask(asking.round) and not self._other_user(asking)
            )
            return scale_down.is_asleep

        try:
            scale_down = await self._source.scale_down(
                *key, lambda labels: self._refusal_reason(asking, labels), agree
            )
        except BaseException:
            # An error must not mask the cancellation; if this write fails, acknowledgements expire.
            with contextlib.suppress(SourceError):
                await self._end(asking.round, is_asleep=scale_down.is_asleep)
            raise
        finally:
            self._again_at[key] = self._clock() + min(_idle_after_s(asking.ports), AGAIN_MAX_S)
        without = dict.fromkeys(map(_service_of, ports), scale_down.reason)
        self._note(without | asking.strangers)
        await self._end(asking.round, is_asleep=scale_down.is_asleep)

    def _refusal_reason(self, asking: _ScaleDownAttempt, labels: Labels) -> str | None:
        """Choose the Services on which nodes vote; return why not to scale, as in :data:`.May`."""
        services = self._services()
        asking.labels = labels
        for service in dict.fromkeys(map(_service_of, asking.ports)):
            why = refusal_reason(selector_of(services, service), asking.workload, labels)
            if why:
                asking.strangers[service] = why
        ports = [port for port in asking.ports if _service_of(port) not in asking.strangers]
        asked = tuple(dict.fromkeys(map(_service_of, ports)))
        asking.ports, asking.round = ports, asking.round._replace(services=asked)
        if not _may_scale_down(ports) or any(map(self._has_demand, ports)):
            return ""
        if sum(len(str(service)) for service in asked) > ROUND_BYTES_MAX:
            return f"{asking.workload} stays at one replica: {len(asked):,} Services name it"
        if other := self._other_user(asking):
            return f"{asking.workload} stays at one replica: {other}"
        return None

    def _other_user(self, asking: _ScaleDownAttempt) -> str:
        asked, labels = asking.round.services, asking.labels
        return other_user(self._services(), self._served_ports, asked, asking.workload, labels)

    async def _end(self, asked: Vote, *, is_asleep: bool) -> None:
        """End a round if it was begun; ``is_asleep`` if the workload was scaled to zero."""
        if self._vote_counts.round == asked:
            over = Vote(asked.number, asked.services if is_asleep else (), is_over=True)
            await self._write(self._vote_counts._replace(round=over))

    async def _ask(self, asked: Vote) -> bool:
        """Begin a round; return whether all nodes acknowledge that its Services have no clients."""
        began = self._clock()
        self._nodes, self._nodes_at = await self._leases.nodes(), began
        if not self._nodes or self._unknown(began):
            return False
        if not await self._write(self._vote_counts._replace(round=asked)):
            return False
        wanted = frozenset(asked.services)
        while self._clock() - began < _ANSWERS_S:
            await self._list(self._clock())
            nodes = self._asked(self._clock())
            answers = [
                known.report.answer.cordoned
                for node in nodes
                if (known := self._known.get(node)) is not None
                and known.report.answer.number == asked.number
            ]
            if any(not wanted <= cordoned for cordoned in answers):
                return False
            if len(answers) == len(nodes):
                # Listing many nodes may take a long time, and acknowledgements expire, so check the
                # time again.
                return self.is_held and self._clock() - began < _ANSWERS_S
            await self._pause(_ANSWERS_EVERY_S)
        return False

    def _note(self, awake_reasons: Mapping[ServiceKey, str]) -> None:
        """Log, and record as Events of Services, new reasons why a workload isn't scaled to zero.

        Args:
            awake_reasons: Reasons by Service; empty if there is none.
        """
        logged: set[str] = set()
        for service, why in awake_reasons.items():
            if not why:
                self._awake_reasons.pop(service, None)
            elif self._awake_reasons.get(service) != why:
                self._awake_reasons[service] = why
                if why not in logged:
                    logged.add(why)
                    fields = {"service": str(service), "cause": why}
                    _log.warning(
                        "%(service)s: workload was not scaled to zero: %(cause)s", extra=fields
                    )
                self._source.record(Happening("StaysAwake", "Sleep", f"{why}.", service))


def _service_of(served: Served) -> ServiceKey:
    return served.plan.key.name.service


def _demand_of(service: ServiceKey, vote_counts: VoteCounts) -> int:
    demand = vote_counts.demand or {}
    return demand.get(service, 0) or demand.get(whole(service.namespace), 0)


def _may_scale_down(ports: Collection[Served]) -> bool:
    """Return whether a Service of a workload requests scaling, and a pod of it is ready.

    While the only pod is being replaced, nodes don't know the next pod yet, and would send clients
    to it.
    """
    asks_for_it = any(port.plan.serving.handling.idle_after_s is not None for port in ports)
    return asks_for_it and any(map(ready_endpoints, ports))


def _idle_after_s(ports: Collection[Served]) -> float:
    """Return the longest idle-after of a workload's Service ports; AGAIN_MAX_S without ports."""
    times = (port.plan.serving.handling.idle_after_s or 0.0 for port in ports)
    return max(times, default=AGAIN_MAX_S)
