"""Which nodes don't have the plan that the API server has, and in which Services.

    digest of a node ──differs──▶ buckets that differ ──asked──▶ digests of their Services
                                         for more than BEHIND_S ──▶ behind

Rule 1: a node is behind in a Service only if its digest has differed at two looks that are BEHIND_S
apart, and what the API server contains stayed the same meanwhile: this machine may be behind, too.
Rule 2: a node isn't asked while its digest is one that was valid a moment ago: its answer may be as
old as that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import msgspec

from userspace_proxy.clocks import Clocks
from userspace_proxy.errors import UserspaceProxyError
from userspace_proxy.plan.digest import BUCKETS, FORM, bucket_of

from ..port_forward import ForwardTarget
from .answer import AgentAnswer
from .ask import Bounds
from .calls import AgentCalls
from .plans import Plans

BEHIND_S = 2.0
ASKED_MAX = 32
"""Nodes that are asked at one look; the others have their turn at the next one."""

_ANSWER_S = 5.0
_BOUNDS = Bounds(body=2 << 20)
_PLAN = "/api/v1/plan"


@dataclass(frozen=True, slots=True)
class _Difference:
    """A Service whose digest isn't that of the API server."""

    ours: str
    since: float
    """When it was first seen so, by this machine's clock."""


class NodePlan(msgspec.Struct, frozen=True):
    """What an agent answers about its plan."""

    form: int = 0
    digests: dict[str, str] = {}


class Behind:
    """What is known of the nodes of one look, or of one that goes on.

    Args:
        clock: Returns seconds, monotonic.
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
        """By node and Service; a node without any that differs may be there."""

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
        """Whether each difference that is known has lasted long enough."""
        now = self._clock()
        known = (one for services in self._differences.values() for one in services.values())
        return all(now - one.since >= BEHIND_S for one in known)

    async def look(self, nodes: Mapping[str, AgentAnswer], *, old_s: float) -> None:
        """Compare the nodes with what the API server contains now.

        Args:
            old_s: How old the nodes' answers may be.
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
        """Return when to ask a node: what has begun is brought to an end."""
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
            # Its answer has a cause of its own.
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
