"""Reads the agents of all nodes, once or continuously, with the user's rights.

    Finder ──agents──▶ NodesReader ──port-forwards──▶ answers ──▶ AllNodes, more and more complete
    Plans ──digests──▶   └── Behind: nodes whose plan differs from the API server's objects

Rule 1: the first answers of all nodes share a deadline; a node that misses it gets a cause instead.
Rule 2: a node can affect only its own answer. An error is raised only if pods can't be listed or
port-forwards aren't permitted, which affects all nodes.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from userspace_proxy.causes.cause import Cause
from userspace_proxy.errors import SourceError, UserspaceProxyError
from userspace_proxy.sources.base import Pause, pause
from userspace_proxy.sources.kubernetes.client import ApiClient
from userspace_proxy.sources.kubernetes.responses import TransportError, unreachable
from userspace_proxy.status.http_answer import Bounds, TooLarge

from ..port_forward import ForwardTarget
from ..user_rights import lacks_rights
from . import agent_causes
from .agent_answer import AllNodes
from .agent_calls import AgentCalls, cause_of_failure
from .agent_streams import PAUSES_S, SILENT_S, Following
from .answer_detail import Answers, Asking, every_s
from .behind import BEHIND_S, Behind
from .discovery import Finder, Where
from .plans import Plans

FIRST_S = 4.0
"""Seconds allowed for the first answers; the start of a command takes another second."""
NODES_PER_S = 100
"""The deadline grows by a second per this many further nodes, as the reader needs that long."""

PAGE = Bounds(body=4 << 20)
"""The limits of a node's answer to a page's request, enough for a Service with 8,000 endpoints."""

Show = Callable[[AllNodes], object]

_SHOW_S = 0.25
_COMPLETE_S = 1.0
_LOOK_S = 0.5
# The maximum number of queued lines, each of at most LINE_BYTES.
_LINES_MAX = 100


@dataclass(frozen=True, slots=True)
class NodeLine:
    """A line sent by an agent, or the reason why its stream broke."""

    node: str
    line: bytes = b""
    """The line; empty when the agent's stream has begun, or if there is a problem."""
    problem: Cause | None = None
    """Why the agent's stream broke; None if it didn't. A broken stream is reopened."""


class NodesReader:
    """Reads all nodes; an async context manager, which opens and closes the client.

    Args:
        client: The API server's client, not open yet.
        where: Selects the agents.
        timeout_s: Timeout of the first answers; None for FIRST_S, and more for many nodes.
        with_plans: Also find nodes whose plan lags behind the API server.
    """

    def __init__(
        self,
        client: ApiClient,
        where: Where | None = None,
        *,
        timeout_s: float | None = None,
        with_plans: bool = True,
        pause: Pause = pause,
    ) -> None:
        self.client = client
        self.now = AllNodes()
        """The known nodes: from :meth:`follow`, otherwise from the last :meth:`first`."""
        self._where = where or Where()
        self._timeout_s = timeout_s
        self._with_plans = with_plans
        self._pause = pause
        self._finder = Finder(client, self._where, pause=pause)
        self._calls = AgentCalls(client)
        self._plans: Plans | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Open the client.

        Raises:
            SourceError: The credentials can't be used.
        """
        self._stack.push_async_callback(self.client.close)
        try:
            await self.client.open()
            await self._stack.enter_async_context(self._running())
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # Don't pass the caller's error to the task group, which would raise it in a group.
        await self._stack.aclose()

    @property
    def agents(self) -> Mapping[str, tuple[ForwardTarget, ...]]:
        """The running agent pods of each node; the first one is queried."""
        pods = self._finder.found.agents
        return {
            node: tuple(pod.target for pod in found if pod.is_running)
            for node, found in pods.items()
        }

    async def first(self, show: Show | None = None, *, also: Collection[str] = ()) -> AllNodes:
        """Ask all nodes, and return the answers that arrived by the deadline.

        Args:
            show: Called with the answers so far, several times a second until all have arrived.
            also: Services, ``namespace/name``, that summaries include even if served.

        Raises:
            UserspaceProxyError: Pods can't be listed, there are no agents, or port-forwards aren't
                permitted.
        """
        loop = asyncio.get_running_loop()
        began = loop.time()
        answers, asking = await self._found(), Asking(also)
        within_s = self._within_s(answers.count)
        turns: set[str] = set()
        is_last = asyncio.Event()
        comparing = self._start(self._compare(answers, within_s, is_last=is_last))
        pending = {
            self._start(self._look(answers, asking, node, to, turns))
            for node, to in answers.to_ask().items()
        }
        pending.add(self._start(self._find_others(answers)))
        while pending and (left_s := began + within_s - loop.time()) > 0:
            _, pending = await asyncio.wait(pending, timeout=min(_SHOW_S, left_s))
            if show is not None and pending:
                show(answers.all_nodes(self._plans))
        for task in pending:
            task.cancel()
        await self._check(answers, asking)
        for node, to in answers.to_ask().items():
            if answers.nodes[node].status is None and answers.nodes[node].problem is None:
                if node in turns:
                    asking.fail_late(answers, node, to, within_s)
                else:
                    answers.fail(node, agent_causes.not_asked(within_s))
        is_last.set()
        left_s = max(0.0, began + within_s - loop.time())
        await asyncio.wait({comparing}, timeout=left_s + BEHIND_S + _LOOK_S)
        comparing.cancel()
        self.now = answers.all_nodes(self._plans)
        return self.now

    async def follow(self, *, also: Collection[str] = ()) -> AsyncIterator[AllNodes]:
        """Yield all nodes as they change, at first as answers arrive; never ends.

        Args:
            also: See :meth:`first`.

        Raises:
            UserspaceProxyError: See :meth:`first`.
        """
        answers, asking, changed = await self._found(), Asking(also, watches=True), asyncio.Event()
        following = Following(
            self._finder,
            self._calls,
            asking,
            answers,
            changed.set,
            first_s=self._within_s(answers.count),
            pause=self._pause,
        )
        every = every_s(answers.count)
        tasks = [
            self._start(following.run()),
            self._start(self._compare(answers, every, changed=changed.set)),
        ]
        try:
            while True:
                await changed.wait()
                changed.clear()
                await self._check(answers, asking)
                self.now = answers.all_nodes(self._plans)
                yield self.now
                await self._pause(_COMPLETE_S if answers.is_settled() else _SHOW_S)
        finally:
            for task in tasks:
                task.cancel()

    async def ask(self, path: str, nodes: Collection[str] = ()) -> Mapping[str, bytes | Cause]:
        """Return some nodes' answers to a request, or why there are none.

        Args:
            path: The path and its query, both quoted.
            nodes: The nodes; empty for all selected nodes with an agent.

        Raises:
            UserspaceProxyError: See :meth:`first`.
        """
        wanted = await self._wanted(nodes)
        found: dict[str, bytes | Cause] = {}
        within_s = self._within_s(len(wanted))

        async def ask_one(node: str, to: ForwardTarget) -> None:
            try:
                found[node] = await self._calls.body(to, path, PAGE)
            except UserspaceProxyError as exc:
                found[node] = cause_of_failure(exc, to.namespace)

        tasks = {self._start(ask_one(node, to)) for node, to in wanted.items()}
        _, pending = await asyncio.wait(tasks, timeout=within_s) if tasks else ((), ())
        for task in pending:
            task.cancel()
        late = {node: agent_causes.no_answer(to.namespace, within_s) for node, to in wanted.items()}
        return {**late, **found}

    async def lines(self, path: str, nodes: Collection[str] = ()) -> AsyncIterator[NodeLine]:
        """Yield lines that some nodes' agents send, and why streams break; never ends.

        Args:
            path, nodes: See :meth:`ask`.

        Raises:
            UserspaceProxyError: See :meth:`first`.
        """
        await self._wanted(nodes)
        # While the queue is full, an agent's lines wait in its stream.
        queue: asyncio.Queue[NodeLine] = asyncio.Queue(_LINES_MAX)
        streams: dict[tuple[str, ForwardTarget], asyncio.Task[None]] = {}

        async def see() -> None:
            found: AsyncIterator[object] = self._finder.follow()
            while True:
                wanted = set(self._known(nodes).items())
                for ended in streams.keys() - wanted:
                    streams.pop(ended).cancel()
                for node, to in wanted - streams.keys():
                    streams[node, to] = self._start(self._keep_lines(node, to, path, queue))
                await anext(found)

        seeing = self._start(see())
        try:
            while True:
                yield await queue.get()
        finally:
            for task in (seeing, *streams.values()):
                task.cancel()

    @contextlib.asynccontextmanager
    async def _running(self) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as self._group:
            try:
                yield
            finally:
                for task in self._tasks:
                    task.cancel()

    def _start(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._group.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _within_s(self, count: int) -> float:
        if self._timeout_s is not None:
            return self._timeout_s
        return FIRST_S + max(0, count - NODES_PER_S) / NODES_PER_S

    async def _found(self) -> Answers:
        """Return all nodes known from pods, without answers; raise SourceError if listing fails."""
        answers, within_s = Answers(self._where), self._timeout_s or FIRST_S
        try:
            async with asyncio.timeout(within_s):
                answers.take(await self._finder.pods())
        except TimeoutError as exc:
            silence = TransportError(f"no answer within {within_s:g} s")
            raise SourceError(unreachable(self.client.url, silence).text) from exc
        return answers

    async def _find_others(self, answers: Answers) -> None:
        answers.take(await self._finder.others())

    async def _compare(
        self,
        answers: Answers,
        old_s: float,
        *,
        is_last: asyncio.Event | None = None,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        """Repeatedly record which nodes lag behind.

        Args:
            old_s: The maximum age of answers.
            is_last: Once set, return as soon as each difference has lasted long enough.
            changed: Called after each change.
        """
        if not self._with_plans:
            return
        if self._plans is None:
            self._plans = Plans(self.client, pause=self._pause)
            self._start(self._plans.run())
        await self._plans.ready.wait()
        behind = Behind(self._calls, self._plans)
        while self._plans.planned_at:
            ends = is_last is not None and is_last.is_set()
            await behind.look(answers.nodes, old_s=old_s)
            if answers.set_behind(behind.services):
                changed()
            if ends and behind.is_sure:
                return
            if is_last is None or ends:
                await self._pause(_LOOK_S)
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_S):
                    await is_last.wait()

    async def _wanted(self, nodes: Collection[str]) -> Mapping[str, ForwardTarget]:
        """Return the agents to ask on these nodes; on all selected nodes if none is named."""
        if not self.agents:
            await self._found()
            self._finder.check()
        return self._known(nodes)

    def _known(self, nodes: Collection[str]) -> Mapping[str, ForwardTarget]:
        wanted = frozenset(nodes) or self._where.nodes
        return {
            node: found[0]
            for node, found in self.agents.items()
            if found and (not wanted or node in wanted)
        }

    async def _look(
        self, answers: Answers, asking: Asking, node: str, to: ForwardTarget, turns: set[str]
    ) -> None:
        def waits(is_waiting: bool) -> None:
            (turns.discard if is_waiting else turns.add)(node)

        # While an update replaces an agent, the pod to ask first may have handed over just now.
        others = [one for one in answers.nodes[node].agents if one != to]
        while True:
            mode = asking.mode(node, answers.count)
            try:
                read = await self._calls.status(to, mode.path, mode.bounds, waits)
            except TooLarge as exc:
                if asking.reduce(node, mode):
                    continue
                asking.fail(answers, node, to, exc)
            except UserspaceProxyError as exc:
                if others:
                    to = others.pop(0)
                    continue
                asking.fail(answers, node, to, exc)
            else:
                asking.take(answers, node, read, mode)
            return

    async def _keep_lines(
        self, node: str, to: ForwardTarget, path: str, queue: asyncio.Queue[NodeLine]
    ) -> None:
        """Put an agent's lines and its stream's problems into a queue until cancelled."""
        tries, within_s = 0, self._within_s(len(self.agents))
        while True:
            sent = self._calls.lines(to, path, first_s=within_s, silent_s=SILENT_S)
            row, seconds = agent_causes.no_answer, within_s
            try:
                async with contextlib.aclosing(sent):
                    async for line in sent:
                        tries, row, seconds = 0, agent_causes.gone_silent, SILENT_S
                        await queue.put(NodeLine(node, line))
            except UserspaceProxyError as exc:
                cause = cause_of_failure(exc, to.namespace)
            except TimeoutError:
                cause = row(to.namespace, seconds)
            await queue.put(NodeLine(node, problem=cause))
            await self._pause(PAUSES_S[min(tries, len(PAUSES_S) - 1)])
            tries += 1

    async def _check(self, answers: Answers, asking: Asking) -> None:
        """Raise an error if the answers show a failure that affects all nodes."""
        has_none = answers.is_settled() and not any(one.status for one in answers.nodes.values())
        if asking.refused is not None and has_none:
            namespace, words = self._where.namespace, str(asking.refused)
            raise await lacks_rights(self.client, "forward ports of pods", namespace, words)
        if not answers.count and (self._finder.has_others or not asking.watches):
            self._finder.check()
