"""Follows the agents of all nodes: one stream each, reopened when it ends or its pod changes.

FoundAgents ──▶ the agent to ask ──▶ stream ──Read──▶ Answers
  ▲            pods change         └─broke off─▶ cause, and again after a pause
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from userspace_proxy.errors import UserspaceProxyError
from userspace_proxy.sources.base import Pause
from userspace_proxy.status.http_answer import TooLarge

from ..port_forward import ForwardTarget
from . import agent_causes
from .agent_calls import AgentCalls
from .answer_detail import Answers, Asking, every_s
from .discovery import Finder

PAUSES_S = (1.0, 2.0, 4.0, 8.0, 15.0)
"""Pauses before a stream is reopened; the last one is repeated."""
SILENT_S = 10.0
"""The maximum silence in seconds of an agent that sends every second, before it counts as gone."""
OTHERS_S = 300.0
"""Seconds between lists of all Nodes; pods are watched, and the Node of a stream that has ended is
listed after each try, and again once its agent is gone."""
# The pauses after each list of the Node of an agent that is gone: the Node may be deleted later.
_GONE_S = (5.0, 20.0, 60.0, 60.0)


class Following:
    """All nodes' streams.

    Args:
        finder: Finds the agents; it has already listed the pods.
        answers: The answers, with the agents that were found.
        changed: Called after each change of the answers.
        first_s: Timeout of a stream's first answer.
    """

    def __init__(
        self,
        finder: Finder,
        calls: AgentCalls,
        asking: Asking,
        answers: Answers,
        changed: Callable[[], None],
        *,
        first_s: float,
        pause: Pause,
    ) -> None:
        self._finder = finder
        self._calls = calls
        self._asking = asking
        self._answers = answers
        self._changed = changed
        self._first_s = first_s
        self._pause = pause
        self._streams: dict[str, tuple[ForwardTarget, asyncio.Task[None]]] = {}

    async def run(self) -> None:
        async with asyncio.TaskGroup() as self._group:
            self._group.create_task(self._see_others())
            self._update()
            async for found in self._finder.follow():
                self._answers.take(found)
                self._update()

    def _update(self) -> None:
        """Open the streams that are needed now, and close others."""
        wanted = self._answers.to_ask()
        for node, (to, task) in list(self._streams.items()):
            if wanted.get(node) != to:
                task.cancel()
                del self._streams[node]
                if node not in wanted and node in self._answers.nodes:
                    self._group.create_task(self._look_at(node))
        for node, to in wanted.items():
            if node not in self._streams:
                self._streams[node] = to, self._group.create_task(self._keep(node, to))
        self._changed()

    async def _look_at(self, node: str) -> None:
        """Check several times whether a lost agent's Node exists; forget it once it is gone."""
        for pause_s in _GONE_S:
            if node in self._answers.nodes and node not in self._streams:
                self._answers.take(await self._finder.look_at(node))
                self._update()
            await self._pause(pause_s)

    async def _see_others(self) -> None:
        while True:
            self._answers.take(await self._finder.others())
            self._update()
            await self._pause(OTHERS_S)

    async def _keep(self, node: str, to: ForwardTarget) -> None:
        """Read one agent's answers until cancelled."""
        tries = 0
        while True:
            before, lost = self._answers.nodes.get(node), ""
            mode = self._asking.mode(node, self._answers.count)
            silent_s = max(SILENT_S, 3.0 * every_s(self._answers.count))
            try:
                reads = self._calls.changes(
                    to, mode.path, mode.bounds, first_s=self._first_s, silent_s=silent_s
                )
                async with contextlib.aclosing(reads):
                    async for read in reads:
                        tries = 0
                        self._asking.take(self._answers, node, read, mode)
                        self._changed()
            except TooLarge as exc:
                if self._asking.reduce(node, mode):
                    continue
                self._asking.fail(self._answers, node, to, exc)
            except UserspaceProxyError as exc:
                if not (lost := await self._finder.silence()):
                    self._asking.fail(self._answers, node, to, exc)
            except TimeoutError:
                is_open = before != self._answers.nodes.get(node)
                seconds = silent_s if is_open else self._first_s
                if not (lost := await self._finder.silence()):
                    self._asking.fail_late(self._answers, node, to, seconds, is_open=is_open)
            if lost:
                self._answers.fail(node, agent_causes.no_api_server(lost))
            self._changed()
            if not lost:
                self._answers.note(await self._finder.look_at(node))
            await self._pause(PAUSES_S[min(tries, len(PAUSES_S) - 1)])
            tries += 1
