"""Provides the contents of pages: merges the nodes' last answers, and requests further facts.

    reader ──latest──▶ AllNodes ──merge──▶ ClusterLook ─────────▶ pages
           ◀──ask───── a Service's whole facts, calls ◀─── pages that need them

Rule 1: while no page is open, nothing is merged or requested. Simultaneous requests share a result.
Rule 2: merging takes at most a quarter of a processor, regardless of the number of nodes.
Rule 3: answers requested for a page are trusted no more than other answers: unreadable answers are
omitted.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias, TypeVar
from urllib.parse import urlencode

import msgspec

from userspace_proxy.causes.cause import Cause
from userspace_proxy.clocks import Clocks
from userspace_proxy.errors import UserspaceProxyError
from userspace_proxy.facts import Level, PortFacts, StatusFacts
from userspace_proxy.facts.edges import EdgesFacts
from userspace_proxy.pacing import Pacing
from userspace_proxy.status.http_answer import TooLarge
from userspace_proxy.status.single_flight import SingleFlight

from ..agent_answer import AgentAnswer, AllNodes
from ..decoding import Allowance
from ..growth import growth_of
from ..merged import merge
from ..reader import PAGE
from .client_calls import AllCalls, add_up
from .lately import Lately
from .look import ClusterLook

Ask: TypeAlias = Callable[[str, Sequence[str]], Awaitable[Mapping[str, bytes | Cause]]]
"""Sends a request to some nodes; returns each agent's answer, or the reason why there is none."""

_T = TypeVar("_T")

# The maximum number of nodes whose tables of clients are read: a table has up to 500 rows, so more
# tables would be many megabytes.
CALLS_OF_NODES_MAX = 100
# The time for which an answer is reused: each request is a port-forward, and ten per second are
# enough.
_FRESH_S = 4.0
_FRESH_OF_NODE_S = 0.1
_SHARE = 0.25
_LEAST_S = 0.5
# The minimum age of the answers with which the current answers are compared, for rates and lags;
# until such answers exist, younger answers are used.
_BEFORE_S = 10.0
_KEPT = 8


class Live:
    """The contents of one dashboard's pages.

    Args:
        latest: Returns all nodes with their latest answers.
        ask: Sends a request to nodes.
        cluster: The name of the cluster.
        unix: Returns the Unix time.
        clock: Returns monotonic seconds.
    """

    def __init__(
        self,
        latest: Callable[[], AllNodes],
        ask: Ask,
        *,
        cluster: str = "",
        unix: Callable[[], float] = Clocks.time,
        clock: Callable[[], float] = Clocks.monotonic,
    ) -> None:
        self._latest = latest
        self._ask = ask
        self._cluster = cluster
        self._unix = unix
        self._clock = clock
        self._merging = asyncio.Lock()
        self._look: ClusterLook | None = None
        self._pacing = Pacing(_SHARE, _LEAST_S)
        self._marks: list[tuple[float, AllNodes]] = []
        """Earlier answers, oldest first, each with monotonic seconds at which it was the latest."""
        self._asking_all: SingleFlight[object] = SingleFlight()
        self._asking_calls: SingleFlight[object] = SingleFlight()
        self._lately = Lately()
        self._answers: dict[str, tuple[float, object]] = {}
        """The answers to pages' requests, by path, with monotonic seconds of their arrival."""

    async def look(self) -> ClusterLook:
        """Return all nodes, merged from answers that may be a moment old."""
        async with self._merging:
            all_nodes, began = self._latest(), self._clock()
            look = self._look
            is_known = look is not None and look.all_nodes is all_nodes
            if look is None or (not is_known and began >= self._pacing.due):
                before = self._before(all_nodes, began)
                merged = await asyncio.to_thread(merge, all_nodes, before)
                if look is not None:
                    growth = await asyncio.to_thread(growth_of, merged, look.merged)
                    self._lately.note((port.key for port in merged.ports), growth, began)
                look = ClusterLook(all_nodes, merged, self._unix(), self._cluster, self._lately)
                self._pacing.note(began, self._clock())
                self._look = look
            return replace(look, now=self._unix())

    async def look_at(self, service: str) -> ClusterLook:
        """Return all nodes' facts about one Service."""
        look = await self.look()
        answers = look.all_nodes.answers
        asked = tuple(one.node for one in answers if one.status is not None and one.is_summary)
        if not asked:
            return replace(look, merged=look.merged.of_service(service))
        path = f"/api/v1/status?{urlencode({'service': service}, errors='replace')}"
        found = await self._asked(self._asking_all, path, asked, _read_all)
        assert isinstance(found, dict)
        known = replace(
            look.all_nodes, answers=tuple(_about(one, service, found) for one in answers)
        )
        merged = await asyncio.to_thread(lambda: merge(known).of_service(service))
        return replace(look, all_nodes=known, merged=merged)

    async def calls(self, service: str = "") -> AllCalls:
        """Return the calls to one Service, or to all Services if ``service`` is empty.

        Only the CALLS_OF_NODES_MAX nodes with the most connections are asked.
        """
        look = await self.look()
        rows = sorted(look.merged.rows, key=lambda row: -row.sums.connections)
        nodes = tuple(row.node for row in rows if row.has_answer)[:CALLS_OF_NODES_MAX]
        if not nodes:
            return AllCalls()
        query = f"?{urlencode({'service': service}, errors='replace')}" if service else ""
        path = f"/api/v1/connections{query}"
        found = await self._asked(self._asking_calls, path, tuple(sorted(nodes)), _read_calls)
        assert isinstance(found, AllCalls)
        return found

    async def _asked(
        self,
        asking: SingleFlight[object],
        path: str,
        nodes: tuple[str, ...],
        read: Callable[[Mapping[str, bytes | Cause]], object],
    ) -> object:
        """Return the nodes' answers, read in a thread; recent answers are reused."""

        async def make() -> object:
            at, known = self._answers.get(path, (float("-inf"), None))
            if self._clock() - at < max(_FRESH_S, _FRESH_OF_NODE_S * len(nodes)):
                return known
            try:
                answers = await self._ask(path, nodes)
            except UserspaceProxyError:
                # The reader itself reports such an error, for example lost rights, so only render
                # this page without the answers.
                answers = {}
            known = await asyncio.to_thread(read, answers)
            self._answers.pop(path, None)
            self._answers[path] = self._clock(), known
            while len(self._answers) > _KEPT:
                del self._answers[next(iter(self._answers))]
            return known

        return await asking.get(path, make)

    def _before(self, now: AllNodes, at: float) -> AllNodes | None:
        """Return earlier answers to compare, or None; store the current answers if they are due."""
        while len(self._marks) > 1 and at - self._marks[1][0] >= _BEFORE_S:
            del self._marks[0]
        before = self._marks[0][1] if self._marks else None
        if not self._marks or at - self._marks[-1][0] >= _BEFORE_S / 2:
            self._marks.append((at, now))
        return before


def _about(answer: AgentAnswer, service: str, found: Mapping[str, StatusFacts]) -> AgentAnswer:
    """Return a node's answer about one Service, with the ports that its summary omits.

    The summary is newer than the facts, so earlier faults of ports that it omits are dropped.
    """
    status = answer.status
    if status is None:
        return answer
    listed = {_key(port): port for port in status.ports if _is_of(port, service)}
    asked = found.get(answer.node)
    for port in asked.ports if asked is not None else ():
        if port.state.level is Level.OK and _is_of(port, service):
            listed.setdefault(_key(port), port)
    return replace(answer, status=msgspec.structs.replace(status, ports=[*listed.values()]))


def _is_of(port: PortFacts, service: str) -> bool:
    return f"{port.namespace}/{port.service}" == service


def _key(port: PortFacts) -> tuple[str, str, str]:
    return port.port, port.family, port.side


def _read_all(answers: Mapping[str, bytes | Cause]) -> dict[str, StatusFacts]:
    return _decoded(answers, StatusFacts)


def _read_calls(answers: Mapping[str, bytes | Cause]) -> AllCalls:
    return add_up(_decoded(answers, EdgesFacts))


def _decoded(answers: Mapping[str, bytes | Cause], kind: type[_T]) -> dict[str, _T]:
    """Return the nodes' answers, without unreadable answers."""
    read = {}
    for node, body in answers.items():
        if isinstance(body, bytes):
            with contextlib.suppress(ValueError, TooLarge):
                read[node] = Allowance(PAGE.body).decode(body, kind)
    return read
