"""Adds up all nodes' demand, and puts workloads without clients to rest, at one node of all.

    Leases of nodes ──▶ sums ──▶ Lease of the holder, which all nodes follow
    no demand, for idle-after ──▶ the source looks at the workload ──▶ round: all nodes are asked
    ──▶ all have answered that there is none, and that new clients wait ──▶ scaled to zero

Rule 1: one node holds the Lease, and asks; all nodes of the cluster must answer, or it is busy.
Rule 2: a Lease that nobody has renewed for DURATION_S, by this node's own clock, is free.
Rule 3: a Service that leads to the same pods, but isn't asked about, keeps its workload awake. One
of another namespace doesn't: its tenant can't select these pods, and listed them at its own risk.
Rule 4: one workload at a time; one that can't rest is looked at again after its idle-after, or
AGAIN_MAX_S.
"""

from __future__ import annotations

import contextlib
import random
import uuid
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace

from ..clocks import Clocks
from ..errors import SourceError
from ..log_fields import FieldLogger
from ..model import ServiceKey
from ..model.annotations import DOMAIN
from ..sources import Happening, Source
from ..sources.base import DURATION_S, Lease, Leases, Pause, Rest, pause
from .lease_notes import (
    HOLDER,
    NODE_PREFIX,
    Board,
    NodeReport,
    Round,
    read_board,
    read_report,
    write_board,
)
from .node_lease import BEAT_S
from .served import Served, ServedByName, WorkloadKey, workload_of
from .usage import Usage

_log = FieldLogger("userspace_proxy.agent")

_RENEW_S = 15.0
# Of thousands of nodes that find the Lease free, few try to get it at once.
_JITTER_S = 10.0
TOO_OLD_S = 2.5 * BEAT_S
"""A report that hasn't changed for that long is unknown."""
# Between two looks at all reports; a second of the server's for each 100 of them.
_LOOK_S, _LOOK_FOR_EACH_S = 2.0, 0.01
# Between two lists of Nodes, which are large.
_NODES_S, _NODES_FOR_EACH_S = 60.0, 0.1
# For all nodes to answer; they have a second of work.
_ANSWERS_S, _ANSWERS_EVERY_S = 8.0, 0.25
AGAIN_MAX_S = 60.0


@dataclass(slots=True)
class _Known:
    """The last report of a node."""

    version: str
    changed_at: float
    """Monotonic seconds at which this process saw that version first."""
    report: NodeReport


class HolderLease:
    """The Lease of the node that adds up the others' demand.

    Args:
        source: Scales workloads, and takes what users of a Service should know.
        identity: Of this process.
    """

    def __init__(
        self,
        leases: Leases,
        usage: Usage,
        served_ports: ServedByName,
        source: Source,
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
        self._identity = identity or f"{leases.node_name}_{uuid.uuid4()}"
        self._clock = clock
        self._pause = pause
        self._jitter_s = (rng or random.Random()).uniform(0, _JITTER_S)
        self._lease: Lease | None = None
        """As it was read or written last."""
        self._changed_at = clock()
        self._board = self._shown = Board()
        """As this process writes it as holder, and as the holder has written it."""
        self._known: dict[str, _Known] = {}
        self._nodes: frozenset[str] = frozenset()
        self._nodes_at = self._looked_at = float("-inf")
        self._again_at: dict[WorkloadKey, float] = {}
        self._why_awake: dict[WorkloadKey, str] = {}

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
        """The demand of all nodes for each Service that holds connections; None: unknown.

        While a node's figure is unknown, each Service has some.
        """
        if self._lease is None or self._clock() - self._changed_at >= DURATION_S:
            return None
        board = self._shown
        if board.demand is None:
            return None
        least, own = int(bool(board.unknown)), self._usage.demand()
        return {key: max(least, board.demand.get(key, 0)) for key in own}

    def see(self, lease: Lease) -> None:
        """Take what the server says of the Lease."""
        # A holder knows what it has written, and hears of it late.
        if self.is_held and lease.holder == self._identity:
            return
        if self._lease is None or lease.version != self._lease.version:
            self._lease, self._changed_at = lease, self._clock()
            self._shown = read_board(lease)

    async def look(self) -> None:
        """Renew the Lease, or take it if it is free; as its holder, see to what is due.

        Call it about each second.

        Raises:
            SourceError: Something wasn't read or written.
        """
        now = self._clock()
        if not self.is_held:
            await self._try_to_take(now)
            return
        if now - self._changed_at >= _RENEW_S:
            await self._write(self._board)
        every_s = max(_LOOK_S, _LOOK_FOR_EACH_S * len(self._known))
        if now - self._looked_at >= every_s:
            self._looked_at = now
            await self._add_up(now)
            await self._rest_one(now)

    async def _try_to_take(self, now: float) -> None:
        if self._lease is None:
            self._lease = await self._leases.read(HOLDER)
            self._changed_at = now
            if self._lease is None:
                await self._write(Board(), Lease(HOLDER))
        elif now - self._changed_at >= DURATION_S + self._jitter_s:
            self._known.clear()
            self._looked_at = now
            await self._write(Board(), self._lease)

    async def _write(self, board: Board, lease: Lease | None = None) -> bool:
        """Write the Lease as its holder; return whether this process holds it now.

        Args:
            lease: One that is free; None: the one that it holds.
        """
        if lease is None and self.is_held:
            lease = self._lease
        if lease is None:
            return False
        wanted = replace(lease, holder=self._identity, notes=write_board(board))
        written = await self._leases.write(wanted)
        if written is None:
            # Someone else has: read it again.
            self._lease = None
            return False
        self._lease, self._changed_at = written, self._clock()
        self._board = self._shown = board
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
        """Publish the sums, if they have changed."""
        await self._list(now)
        if now - self._nodes_at >= max(_NODES_S, _NODES_FOR_EACH_S * len(self._nodes)):
            self._nodes, self._nodes_at = await self._leases.nodes(), now
        sums: dict[ServiceKey, int] = defaultdict(int)
        for name in self._asked(now) & self._known.keys():
            for key, count in (self._known[name].report.demand or {}).items():
                sums[key] += count
        unknown = next(iter(sorted(self._unknown(now))), "")
        before = self._board
        if (before.demand is None or sums.keys() != before.demand.keys()) or (
            unknown != before.unknown
        ):
            await self._write(Board(dict(sums), unknown, before.round))
        else:
            # With the next renewal.
            self._board = before._replace(demand=dict(sums))

    def _asked(self, now: float) -> frozenset[str]:
        """Return all Nodes, and proxies that report without one, or whose Node is newer."""
        recent = (n for n, known in self._known.items() if now - known.changed_at < TOO_OLD_S)
        return self._nodes.union(recent)

    def _unknown(self, now: float) -> frozenset[str]:
        """Return the nodes that haven't reported, or not recently."""
        return frozenset(
            node
            for node in self._asked(now)
            if (known := self._known.get(node)) is None
            or known.report.demand is None
            or now - known.changed_at >= TOO_OLD_S
        )

    async def _rest_one(self, now: float) -> None:
        """Put the first workload to rest that no client needs."""
        if self._board.unknown or not self.is_held:
            return
        demand = self._board.demand or {}
        workloads: dict[WorkloadKey, list[Served]] = defaultdict(list)
        for served in self._served_ports.holding:
            if (workload := workload_of(served)) is not None:
                workloads[workload].append(served)
        self._again_at = {key: at for key, at in self._again_at.items() if key in workloads}
        # Those that were never tried first, then the longest due.
        for key in sorted(workloads, key=lambda key: self._again_at.get(key, 0.0)):
            ports = workloads[key]
            services = tuple(dict.fromkeys(port.plan.key.name.service for port in ports))
            if not _may_rest(ports) or any(demand.get(service) for service in services):
                self._why_awake.pop(key, None)
            elif now >= self._again_at.get(key, now):
                await self._rest(key, services, ports)
                return

    def _other_user(self, namespace: str, ports: Collection[Served]) -> str:
        """Return which other Service of a namespace leads to a workload's pods; empty: none does.

        Other ports of a pod are cut, too, so that an address suffices.
        """
        pods = {verdict.address.ip for port in ports for verdict in port.plan.verdicts}
        for other in self._served_ports:
            service = other.plan.key.name.service
            if service.namespace != namespace or other in ports:
                continue
            if not pods.isdisjoint(v.address.ip for v in other.plan.verdicts):
                return (
                    f"Service {service} leads to the same pods, without "
                    f"{DOMAIN}hold and the same {DOMAIN}wake"
                )
        return ""

    async def _rest(
        self, key: WorkloadKey, services: tuple[ServiceKey, ...], ports: Collection[Served]
    ) -> None:
        asked, rest = Round(str(uuid.uuid4()), services), Rest()

        async def agree() -> bool:
            nonlocal rest
            # The update may be made from now on, whatever interrupts this process.
            rest = Rest(is_asleep=await self._ask(asked))
            return rest.is_asleep

        try:
            if other := self._other_user(key[0], ports):
                rest = Rest(why_not=f"{key[1]} stays at one replica: {other}")
            else:
                rest = await self._source.rest(*key, agree)
        except BaseException:
            # Nothing may replace a cancellation; where this fails, promises end by themselves.
            with contextlib.suppress(SourceError):
                await self._end(asked, services if rest.is_asleep else ())
            raise
        finally:
            self._again_at[key] = self._clock() + min(_idle_after_s(ports), AGAIN_MAX_S)
        self._note(key, services, rest.why_not)
        await self._end(asked, services if rest.is_asleep else ())

    async def _end(self, asked: Round, asleep: tuple[ServiceKey, ...]) -> None:
        """End a round, if it was begun: the workloads of these Services have no replicas."""
        if self._board.round == asked:
            over = Round(asked.number, asleep, is_over=True)
            await self._write(self._board._replace(round=over))

    async def _ask(self, asked: Round) -> bool:
        """Return whether all nodes have answered that the Services of a round have no clients."""
        began = self._clock()
        self._nodes, self._nodes_at = await self._leases.nodes(), began
        if not self._nodes or self._unknown(began):
            return False
        if not await self._write(self._board._replace(round=asked)):
            return False
        wanted = frozenset(asked.services)
        while self._clock() - began < _ANSWERS_S:
            await self._list(self._clock())
            nodes = self._asked(self._clock())
            answers = [
                known.report.answer.quiesced
                for node in nodes
                if (known := self._known.get(node)) is not None
                and known.report.answer.number == asked.number
            ]
            if any(not wanted <= quiesced for quiesced in answers):
                return False
            if len(answers) == len(nodes):
                # A list of many may take long, and answers hold for a time only.
                return self.is_held and self._clock() - began < _ANSWERS_S
            await self._pause(_ANSWERS_EVERY_S)
        return False

    def _note(self, key: WorkloadKey, services: tuple[ServiceKey, ...], why: str) -> None:
        """Report why a workload doesn't rest, once."""
        if not why:
            self._why_awake.pop(key, None)
        elif self._why_awake.get(key) != why:
            self._why_awake[key] = why
            _log.warning("%(service)s: %(cause)s", extra={"service": services[0], "cause": why})
            for service in services:
                happening = Happening("StaysAwake", "Sleep", f"{why}.", service)
                self._source.record(happening)


def _may_rest(ports: Collection[Served]) -> bool:
    """Return whether some Service of a workload asks for it, and the workload has pods."""
    return any(port.plan.serving.handling.idle_after_s is not None for port in ports) and any(
        port.plan.serving.all_endpoints for port in ports
    )


def _idle_after_s(ports: Collection[Served]) -> float:
    """Return the longest time that a Service of a workload asks for."""
    return max(port.plan.serving.handling.idle_after_s or 0.0 for port in ports)
