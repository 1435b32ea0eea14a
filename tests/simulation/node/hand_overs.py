"""Which agents have served, and whose workers have the clients."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..control.files import WORKER, Port
from .plan import DRAIN_S

if TYPE_CHECKING:
    from ..control.machine import Process
    from .agents import AgentRun
    from .clients import Client
    from .world import World


LATE_WORKER = "the last agent's worker had the port"


class HandOvers:
    """The agents of one run, in the order in which they served."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._served_at: dict[AgentRun, float] = {}
        """Agents that have had a round in force, and since when."""
        self.lost: dict[int, str] = {}
        """Ports that the agent couldn't recover, and why: rules lead there until it serves."""

    def serves(self, agent: AgentRun) -> None:
        """Note that an agent has a round in force; idempotent."""
        self._served_at.setdefault(agent, self._world.timeline.now)
        self.lost.clear()

    def has_served(self, agent: AgentRun | None) -> bool:
        """Return whether an agent has had a round in force."""
        return agent in self._served_at

    def why_closed(self, port: int, *, is_tcp: bool) -> str:
        """Return why frontends may lead to a closed port until the agent serves, or nothing."""
        agent = self._world.agent
        if is_tcp or agent is None or self.has_served(agent):
            return self.lost.get(port, "")
        workers = self._world.machine.alive(WORKER)
        if any(worker.parent is not agent.process for worker in workers):
            # It is about to end, and the agent has found its ports in use.
            self.lost.setdefault(port, LATE_WORKER)
        return self.lost.get(port, "")

    def was_never_taken(self, client: Client) -> bool:
        """Return whether a client has waited in a queue since before this agent served."""
        agent = self._world.agent
        served_at = float("inf") if agent is None else self._served_at.get(agent, float("inf"))
        return served_at >= client.dialled_at and self._parent_of(client) is None

    def was_recovered(self, client: Client) -> bool:
        """Return whether a client has waited in the queue of a socket that an agent has opened at a
        port of its last rules, since it found no worker there.
        """
        agent, workers = self._world.agent, self._world.machine.alive(WORKER)
        is_alone = agent is not None and all(each.parent is agent.process for each in workers)
        return is_alone and self.was_never_taken(client)

    def is_ended_by_successor(self, client: Client) -> bool:
        """Return whether an agent was told to end after that whose worker has taken a client.

        It may die while it ends, and has told the worker before.
        """
        parent = self._parent_of(client)
        return parent is not None and any(
            agent.is_ending and agent.process.pid > parent.pid for agent in self._world.agents
        )

    def has_drained(self, client: Client) -> bool:
        """Return whether a client's worker has had its time since a later agent served."""
        parent, now = self._parent_of(client), self._world.timeline.now
        return parent is not None and any(
            agent.process.pid > parent.pid and now >= served_at + DRAIN_S
            for agent, served_at in self._served_at.items()
        )

    def is_of_last_owner(self, client: Client, target: object) -> bool:
        """Return whether a worker of the last agent serves a client, for another Service.

        An agent gives the proxy port to which rules lead an address to the Service that owns the
        address now, and until they drain, workers of the last agent accept there, too.

        Args:
            target: Where the table leads the client.
        """
        agent, claim = self._world.agent, self._world.cluster.last.frontends.get(client.at)
        for process in self._world.machine.alive(WORKER):
            is_old = agent is not None and process.parent is not agent.process
            if is_old and (client.stream is None or client.stream in process.kernel.taken):
                owners = {name for at, name in labels_of(process).items() if at.port == target}
                if owners and (claim is None or claim.name not in owners):
                    return True
        return False

    def labels(self) -> dict[Port, str]:
        """Return the Service ports of sockets, as workers of the agent have them.

        Until it drains, a predecessor serves as the last agent had it.
        """
        agent, found = self._world.agent, dict[Port, str]()
        for process in self._world.machine.alive(WORKER):
            if agent is not None and process.parent is agent.process:
                found.update(labels_of(process))
        return found

    def _parent_of(self, client: Client) -> Process | None:
        """Return the control process whose worker has taken a client."""
        taken = (p for p in self._world.machine.processes if client.stream in p.kernel.taken)
        return next((process.parent for process in taken), None)


def labels_of(process: Process) -> dict[Port, str]:
    """Return the Service ports of a worker's sockets; none before it has begun."""
    worker = process.main._worker if process.main is not None else None
    listeners = () if worker is None else worker._listeners.values()
    return {each.sock.core.shared: each.group.reference for each in listeners}
