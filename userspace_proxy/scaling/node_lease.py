"""Reports this node's demand in its Lease, and answers votes that the cluster's holder requests.

    demand ──at once if it begins or ends, otherwise every 30 to 60 s──▶ Lease of this node
    vote ──▶ read counters ──▶ cordon Services without clients
          ──▶ workers have answered, and dials in progress have ended ──▶ read counters again
          ──▶ answer ──▶ new clients wait

Rule 1: an answer acknowledges a cordon: until the vote is over or the answer expires, this node
sends no client to the cordoned endpoints (``cordons``).
Rule 2: a node that doesn't know its demand omits it, and other nodes count it as busy.
Rule 3: an answer may have been written even if the request failed, so the acknowledgement holds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import replace

from ..clocks import Clocks
from ..model import ServiceKey
from ..sources.base import Lease, Leases, Pause, pause
from .cordons import CORDON_S, Cordons
from .lease_notes import NODE_PREFIX, NodeAnswer, NodeReport, Vote, write_report
from .usage import Usage

BEAT_S = 60.0
"""Seconds between two reports of unchanged demand: 5,000 nodes write 83 Leases a second, and their
kubelets write 500."""
_FIGURES_S = 30.0
# The time limit for workers' reports; a slower worker makes the node's demand unknown.
_COUNT_S = 0.9


class NodeLease:
    """The Lease of this node.

    Args:
        refresh: Updates the workers' counters; may take a second.
        is_known: Returns whether all connections of this node are counted.
        hurry: Called with a Service whose workload was just scaled to zero.
        settle_s: The maximum duration of a dial.
    """

    def __init__(
        self,
        leases: Leases,
        usage: Usage,
        cordons: Cordons,
        *,
        refresh: Callable[[], Awaitable[None]],
        is_known: Callable[[], bool],
        hurry: Callable[[ServiceKey], None],
        settle_s: float,
        clock: Callable[[], float] = Clocks.monotonic,
        pause: Pause = pause,
    ) -> None:
        self._leases = leases
        self._usage = usage
        self._cordons = cordons
        self._refresh = refresh
        self._is_known = is_known
        self._hurry = hurry
        self._settle_s = settle_s
        self._clock = clock
        self._pause = pause
        self._lease: Lease | None = None
        self._written: tuple[Mapping[ServiceKey, int] | None, float] | None = None
        """The last written demand, and the time of the write in monotonic seconds; None if the
        demand must be written again."""
        self._answer = NodeAnswer()
        self._writing = asyncio.Lock()

    async def restore(self) -> None:
        """Restore the previous process's answer; call before any Service is served."""
        self._answer = await self._cordons.restore()

    async def look(self) -> None:
        """Report demand that has changed, or is older than BEAT_S; call this about once a second.

        Raises:
            SourceError: The report wasn't written.
        """
        self._usage.look()
        demand = self._demand()
        if self._is_due(demand):
            await self._write(demand)

    async def follow(self, asked: Vote | None) -> None:
        """Answer the vote in the holder's Lease; without a vote, or after it, end the cordons.

        Raises:
            SourceError: The answer may not have been written.
            UserspaceProxyError: The acknowledgement can't be stored, so none is given.
        """
        if asked is None or asked.is_over:
            self._answer = self._answer._replace(cordoned=frozenset())
            for service in self._cordons.end(asked):
                self._hurry(service)
            await self._cordons.forget_ended()
        elif asked.number != self._answer.number:
            self._answer = NodeAnswer(asked.number, await self._cordon(asked))
            await self._write(self._demand())

    def _demand(self) -> Mapping[ServiceKey, int] | None:
        if not self._is_known():
            return None
        return {key: count for key, count in self._usage.demand().items() if count}

    def _is_due(self, demand: Mapping[ServiceKey, int] | None) -> bool:
        if self._written is None:
            return True
        before, at = self._written
        age_s = self._clock() - at
        if demand is None or before is None:
            return demand is not before or age_s >= BEAT_S
        if demand.keys() != before.keys():
            return True
        return age_s >= (_FIGURES_S if demand != before else BEAT_S)

    async def _write(self, demand: Mapping[ServiceKey, int] | None) -> None:
        async with self._writing:
            name = NODE_PREFIX + self._leases.node_name
            lease = self._lease or await self._leases.read(name) or Lease(name)
            notes = write_report(NodeReport(demand, self._answer))
            written = replace(lease, holder=self._leases.node_name, notes=notes)
            self._lease = await self._leases.write(written)
            # The result is None if another process of this node has also written the Lease.
            self._written = None if self._lease is None else (demand, self._clock())

    async def _cordon(self, asked: Vote) -> frozenset[ServiceKey]:
        """Cordon Services without clients; return the Services that still have no clients."""
        if not await self._count():
            return frozenset()
        until = self._clock() + CORDON_S
        cordoned = self._without_clients(asked.services)
        for service in cordoned:
            self._cordons.cordon(service, asked.number, until)
        is_settled = bool(cordoned) and await self._settle()
        still = self._without_clients(cordoned) if is_settled else frozenset()
        for service in cordoned - still:
            self._cordons.release(service)
        await self._cordons.keep(asked.number)
        return still

    async def _settle(self) -> bool:
        """Wait for dials in progress; return whether all clients are counted afterwards."""
        # A busy worker continues to dial until it has applied the cordon, and answers afterwards,
        # so wait for its answer first.
        if not await self._count():
            return False
        await self._pause(self._settle_s)
        return await self._count()

    async def _count(self) -> bool:
        """Update the counters; return whether all clients are counted."""
        try:
            async with asyncio.timeout(_COUNT_S):
                await self._refresh()
        except TimeoutError:
            return False
        return self._is_known()

    def _without_clients(self, services: Iterable[ServiceKey]) -> frozenset[ServiceKey]:
        demand = self._usage.demand()
        # A Service that isn't served here yet may be soon, so its demand is unknown.
        return frozenset(service for service in services if demand.get(service, 1) == 0)
