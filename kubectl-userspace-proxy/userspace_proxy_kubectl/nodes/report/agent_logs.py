"""Reads the last lines of agents' logs through the API server.

Rule 1: the size of each log, of all logs together, and the time for reading them are bounded. Logs
are requested in the given order, in which agents with problems are first.
Rule 2: a log that is denied for one agent isn't requested for other agents in its namespace.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

from userspace_proxy.errors import UserspaceProxyError
from userspace_proxy.sources.kubernetes.api_paths import join
from userspace_proxy.sources.kubernetes.client import ApiClient
from userspace_proxy.sources.kubernetes.responses import cause_of

from ...port_forward import ForwardTarget

LINES = 500
LOG_BYTES = 256 << 10
"""The maximum size of an agent's log, of which only the end is kept."""
ALL_BYTES = 32 << 20
WITHIN_S = 60.0
"""Seconds for all logs."""
_AT_ONCE = 8
# The value of limitBytes: the server counts from the first of the tailLines lines and cuts off the
# end, so request more than is kept.
_ASKED_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class AgentLog:
    """The end of one agent's log."""

    agent: ForwardTarget
    text: str = ""
    problem: str = ""
    """Why the log is missing or incomplete; empty if it is complete."""


async def read_logs(client: ApiClient, agents: Sequence[ForwardTarget]) -> list[AgentLog]:
    """Return agents' logs, in the same order; for an unreadable log, the reason."""
    reading = _Reading(client)
    found = [AgentLog(agent, problem=f"not read within {WITHIN_S:g} s") for agent in agents]
    waiting = iter(range(len(agents)))

    async def work() -> None:
        for place in waiting:
            found[place] = await reading.read(agents[place])

    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(WITHIN_S):
            await asyncio.gather(*(work() for _ in range(_AT_ONCE)))
    return found


class _Reading:
    """Reads logs within the limit of their total size, except in namespaces that deny access."""

    def __init__(self, client: ApiClient) -> None:
        self._client = client
        self._left_bytes = ALL_BYTES
        self._denied: dict[str, str] = {}
        """By namespace, why its logs may not be read."""

    async def read(self, agent: ForwardTarget) -> AgentLog:
        if problem := self._denied.get(agent.namespace):
            return AgentLog(agent, problem=problem)
        if self._left_bytes <= 0:
            return AgentLog(agent, problem=f"the logs of others take {ALL_BYTES >> 20} MiB")
        path = join("/api/v1/namespaces", agent.namespace, "pods", agent.pod, "log")
        query = {"tailLines": str(LINES), "limitBytes": str(_ASKED_BYTES), "timestamps": "true"}
        try:
            response = await self._client.get(path, query)
        except UserspaceProxyError as exc:
            return AgentLog(agent, problem=str(exc))
        if response.code == 204:
            return AgentLog(agent, problem="its container hasn't started")
        if response.code != 200:
            problem = " ".join(cause_of(response).split())
            if response.code in (401, 403):
                # Replace the server's message, which names one pod but applies to all pods of the
                # namespace.
                problem = f"this user may not get pods/log in namespace {agent.namespace}"
                self._denied[agent.namespace] = problem
            return AgentLog(agent, problem=problem)
        body = response.body[-LOG_BYTES:]
        is_cut = len(body) < len(response.body)
        self._left_bytes -= len(body)
        text = body.decode(errors="replace")
        return AgentLog(
            agent,
            text.partition("\n")[2] if is_cut else text,
            f"only the last {LOG_BYTES >> 10} KiB are here" if is_cut else "",
        )
