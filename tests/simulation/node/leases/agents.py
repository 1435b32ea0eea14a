"""One node: the product's source, Service ports and scaling in a process, and its workers."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from random import Random
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

from userspace_proxy.agent.rounds.options import Options
from userspace_proxy.agent.rounds.planning import Planning
from userspace_proxy.agent.rounds.served_ports import ServedPorts
from userspace_proxy.agent.rounds.tasks import Supervisor
from userspace_proxy.agent.scaling import Scaling
from userspace_proxy.cluster import Snapshot
from userspace_proxy.cluster.store import ServiceState
from userspace_proxy.dataplane import Tuning
from userspace_proxy.model import ServiceKey
from userspace_proxy.plan import Planner
from userspace_proxy.plane import PortPool
from userspace_proxy.policy import NodeFacts
from userspace_proxy.sources.kubernetes import KubernetesSource
from userspace_proxy.sources.kubernetes.reflector import Timing
from userspace_proxy.steering import Bind

from ..api_client import URL
from ..disk import FOLDER, Disk
from ..machine import AgentProcess
from .clients import DONE, Client
from .workers import DIAL_S, NodePlane, Worker

if TYPE_CHECKING:
    from .world import World

# Waits before retries are shorter than the product's, so that changes have a short bound.
_TIMING = Timing(backoff_base_s=0.1, backoff_cap_s=1.0, watch_s=120.0)
_TUNING = Tuning(connect_timeout_s=DIAL_S)
_REFUSED_S = 0.5


class Core:
    """What scaling has of an agent: part of Core."""

    def __init__(self, agent: AgentRun, options: Options, source: KubernetesSource) -> None:
        self.options = options
        self.source = source
        self.plane = agent.plane
        self.predecessors = agent.predecessors
        self.served_ports = agent.served_ports
        self.sync = SimpleNamespace(progress=agent)
        self._agent = agent

    def services(self) -> Mapping[ServiceKey, ServiceState]:
        """Part of Core."""
        latest = self._agent.latest
        return {} if latest is None else latest.services


class AgentRun:
    """The process of one agent."""

    def __init__(self, world: World, node: SimulatedNode, process: AgentProcess) -> None:
        plan = world.plan
        self.world = world
        self.node = node
        self.process = process
        self.latest: Snapshot | None = None
        self._served = asyncio.Event()
        """A first snapshot is in force."""
        self.predecessors = list(node.old_workers)
        """Workers of agents before that accept clients."""
        self._wake = asyncio.Event()
        self.plane = NodePlane(world, node.name, process)
        self.supervisor = Supervisor()
        self.source = KubernetesSource(
            master=URL,
            node_name=node.name,
            timing=_TIMING,
            rng=Random(world.rng.random()),
            clock=world.timeline.clock,
        )
        options = Options(
            node_name=node.name,
            allow_wake=True,
            tuning=_TUNING,
            state_dir=FOLDER if plan.keeps_files else "",
            predecessor_drain_s=plan.drain_s,
        )
        self.served_ports = ServedPorts(
            cast("Any", self.plane), Bind.PROXY_PORT, PortPool(27000, 27999)
        )
        self._planning = Planning(
            Planner(NodeFacts()),
            self.served_ports,
            recovered={},
            report=self.source.record,
            want_nodes=self.source.want_nodes,
        )
        self.scaling = Scaling(cast("Any", Core(self, options, self.source)))

    @property
    def is_synced(self) -> bool:
        """Part of Progress."""
        return self._served.is_set()

    @property
    def demand(self) -> Mapping[ServiceKey, int] | None:
        """The demand of all nodes, as this one shows it."""
        assert self.scaling._resting is not None, "it may scale"
        return self.scaling._resting.demand

    async def run(self) -> int:
        """Serve until the process dies."""
        supervisor = self.supervisor
        await self.scaling.start(supervisor)
        supervisor.start("sync", self._sync)
        supervisor.start("source", lambda: self.source.run(self._publish))
        if self.predecessors:
            supervisor.start("hand-over", self._relieve)
        failure = await supervisor.failed()
        raise failure

    def _publish(self, snapshot: Snapshot) -> None:
        self.latest = snapshot
        self._wake.set()

    async def _sync(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            assert self.latest is not None, "it was published"
            await self._planning.follow(self.latest)
            self.served_ports.close_retired()
            self._served.set()

    async def _relieve(self) -> None:
        """Have the last agent's workers drain once all is served."""
        await self._served.wait()
        await self.plane.refresh()
        for worker in self.predecessors:
            worker.drain(self.world.plan.drain_s)
        self.predecessors.clear()


class SimulatedNode:
    """One node of the cluster."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.skew_s = 0.0
        """How much its wall clock is ahead."""
        self.disk = Disk(world.rng, lambda: world.now, self.unix, lambda _call: None)
        self.process: AgentProcess | None = None
        self.agent: AgentRun | None = None
        self.old_workers: list[Worker] = []
        self.started_at = self.counted_since = 0.0
        """When its agent began, and since when no worker has died with what it hadn't reported."""

    def unix(self) -> float:
        """Return Unix time, as this node has it."""
        return self.world.unix + self.skew_s

    @property
    def is_running(self) -> bool:
        return self.process is not None and not self.process.is_dead

    def start(self) -> None:
        """Start an agent."""
        if self.is_running:
            return
        self.old_workers = [worker for worker in self.old_workers if not worker.is_dead]
        world = self.world
        self.started_at = self.counted_since = world.now
        self.process = process = AgentProcess(world.machine, f"agent {self.name}")
        with process:
            self.agent = agent = AgentRun(world, self, process)
        world.checks.started(self)
        process.start(agent.run)

    def die(self, *, with_workers: bool) -> None:
        """End the agent, as by SIGKILL.

        Args:
            with_workers: Workers end, too.
        """
        if self.process is None or self.process.is_dead or self.agent is None:
            return
        process, plane = self.process, self.agent.plane
        process.die(-9)
        process.forget()
        self.world.died(process)
        self.disk.forget_opened()
        worker = plane.worker
        worker.plane = None
        if with_workers:
            for each in (worker, *self.old_workers):
                each.die()
            self.old_workers.clear()
        else:
            self.old_workers.append(worker)

    @property
    def workers(self) -> list[Worker]:
        """Those that may have clients."""
        running = [self.agent.plane.worker] if self.agent is not None and self.is_running else []
        return [worker for worker in (*running, *self.old_workers) if not worker.is_dead]

    def accept(self, client: Client) -> None:
        """Lead a client to a worker; where none takes it, it dials again until it gives up."""
        if client.state == DONE:
            return
        found = [
            (worker, port)
            for worker in self.workers
            if (port := worker.serves(client.service)) is not None
        ]
        if found:
            worker, port = self.world.rng.choice(found)
            worker.accept(port, client)
        elif client.patience_s > 0:
            client.patience_s -= _REFUSED_S
            self.world.timeline.after(_REFUSED_S, self.accept, client)
        else:
            self.world.set_state(client, DONE)
