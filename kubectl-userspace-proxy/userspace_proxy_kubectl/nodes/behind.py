"""Finds nodes whose plan lags behind the API server, and the affected Services.

    digest of a node ──differs──▶ buckets that differ ──asked──▶ digests of their Services
                                         for more than BEHIND_S ──▶ behind

Rule 1: a node's plan of a Service counts as behind only if its digest differed at two comparisons
BEHIND_S apart, and the API server's contents stayed the same between them: this machine may lag,
too.
Rule 2: a node isn't asked if its digest was valid a moment ago, because its answer may be that old.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import msgspec

from userspace_proxy.clocks import Clocks
from userspace_proxy.errors import UserspaceProxyError
from userspace_proxy.plan.digest import BUCKETS, FORM, bucket_of
from userspace_proxy.status.http_answer import Bounds

from ..port_forward import ForwardTarget
from .agent_answer import AgentAnswer
from .agent_calls import AgentCalls
from .plans import Plans

BEHIND_S = 2.0
ASKED_MAX = 32
"""The maximum number of nodes to ask at one comparison; others are asked at the next one."""

_ANSWER_S = 5.0
_BOUNDS = Bounds(body=2 << 20)
_PLAN = "/api/v1/plan"


@dataclass(frozen=True, slots=True)
class _Difference:
    """A Service whose digest differs from the API server's."""

    ours: str
    since: float
    """Monotonic seconds at which the difference was first seen."""


class NodePlan(msgspec.Struct, frozen=True):
    """An agent's answer about its plan."""

    form: int = 0
    digests: dict[str, str] = {}


class Behind:
    """The known differences of all nodes, from one read or a continuous read.

    Args:
        clock: Returns monotonic seconds.
    """

    def __init__(
        self,
        calls: AgentCalls,
        plans: Plans,
        *,
        clock: Callable[[], float] = Clocks.monotonic,
    ) -> None:
        self._calls = calls
        self._plans = plans
        self._clock = clock
        self._differences: dict[str, dict[str, _Difference]] = {}
        """Differences by node and Service; a node may have none."""

    @property
    def services(self) -> Mapping[str, tuple[str, ...]]:
        now = self._clock()
        found = {
            node: tuple(sorted(n for n, one in known.items() if now - one.since >= BEHIND_S))
            for node, known in self._differences.items()
        }
        return {node: services for node, services in found.items() if services}

    @property
    def is_sure(self) -> bool:
        """Whether each known difference has lasted long enough to be reported."""
        now = self._clock()
        known = (one for services in self._differences.values() for one in services.values())
        return all(now - one.since >= BEHIND_S for one in known)

    async def look(self, nodes: Mapping[str, AgentAnswer], *, old_s: float) -> None:
        """Update the differences between the nodes and the API server's current contents.

        Args:
            old_s: The maximum age of the nodes' answers.
        """
        if not self._plans.planned_at:
            return
        differing = {
            node: one.agents[0]
            for node, one in nodes.items()
            if one.agents and self._differs(one, old_s + BEHIND_S)
        }
        for node in self._differences.keys() - differing.keys():
            del self._differences[node]
        first = sorted(differing, key=self._turn)
        await asyncio.gather(
            *(self._ask(node, differing[node], nodes[node]) for node in first[:ASKED_MAX])
        )

    def _turn(self, node: str) -> int:
        """Return a node's rank: 0 with differences, 1 if not asked yet, 2 without differences."""
        known = self._differences.get(node)
        return 1 if known is None else 0 if known else 2

    def _differs(self, one: AgentAnswer, within_s: float) -> bool:
        if one.status is None or one.problem is not None:
            return False
        plan = one.status.plan
        if plan.form != FORM or not plan.digest or len(plan.buckets) != BUCKETS:
            return False
        if one.node in self._differences:
            return plan.digest != self._plans.summary[0]
        return not self._plans.had(plan.digest, within_s)

    async def _ask(self, node: str, to: ForwardTarget, one: AgentAnswer) -> None:
        assert one.status is not None
        pairs = zip(one.status.plan.buckets, self._plans.summary[1], strict=True)
        wanted = [number for number, (theirs, ours) in enumerate(pairs) if theirs != ours]
        query = "&".join(f"bucket={number}" for number in wanted)
        try:
            async with asyncio.timeout(_ANSWER_S):
                plan = await self._calls.read(to, f"{_PLAN}?{query}", NodePlan, _BOUNDS)
        except (UserspaceProxyError, TimeoutError):
            # Drop the comparison: a node without an answer already has a cause.
            self._differences.pop(node, None)
            return
        if plan.form == FORM:
            self._note(node, plan.digests, frozenset(wanted))

    def _note(self, node: str, theirs: Mapping[str, str], buckets: Collection[int]) -> None:
        ours = self._plans.digests or {}
        unread = self._plans.unread
        now, known = self._clock(), self._differences.get(node, {})
        names = {name for name in ours.keys() | theirs.keys() if bucket_of(name) in buckets}
        found = {}
        for name in names - unread:
            digest = ours.get(name, "")
            if theirs.get(name, "") != digest:
                before = known.get(name, _Difference(digest, now))
                found[name] = before if before.ours == digest else _Difference(digest, now)
        self._differences[node] = found
