"""The agent as the first process of a PID namespace, as in a container."""

from __future__ import annotations

from tests.node.agents import Agent
from tests.node.processes import child_pids


class ContainedAgent(Agent):
    """An agent in a PID namespace of its own; its process is the program that creates it."""

    @property
    def command(self) -> list[str]:
        """Part of Agent."""
        unshare = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
        return [*unshare, *super().command]

    @property
    def first(self) -> int:
        (pid,) = child_pids(self.pid)
        return pid

    @property
    def control(self) -> int:
        """Part of Agent: the only child with children, as orphaned workers have none."""
        (pid,) = (pid for pid in child_pids(self.first) if child_pids(pid))
        return pid
