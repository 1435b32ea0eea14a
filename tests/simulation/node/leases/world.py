"""Carries a plan out: nodes, an API server, workloads, clients, and what goes wrong with them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

from ...control.machine import Process
from ..api import ApiServer
from ..api_client import Address, SimulatedClient
from ..api_faults import Cut
from ..disk import Disk
from ..machine import AgentMachine
from ..source_world import SourceWorld
from .agents import SimulatedNode
from .checks import ORACLES, Checks
from .clients import DIALLING, DONE, WAITING, Client
from .ending import Ending
from .objects import autoscaler_object, budget_object, node_object, service_object
from .plan import NODES, Plan, ServiceSpec, Step
from .seam import installed
from .truth import NAMESPACE
from .workers import DIAL_S
from .workloads import Workload, Workloads

__all__ = ["ORACLES", "World"]

_UNIX_TIME = 1_790_000_000.0
_LOOK_S = 1.0
# For watches to begin again, and for what has failed to be tried again.
_AGAIN_S = 3.0
# What removes objects of Nodes that are deleted takes that long.
_COLLECTED_S = 2.0
# Until an agent that starts has read all, and has reported.
_STARTED_S = 5.0


class World(SourceWorld[AgentMachine]):
    """Everything of one run; :meth:`run` returns what was wrong.

    Args:
        is_traced: Whether to note each step.
    """

    def __init__(self, plan: Plan, *, is_traced: bool = False) -> None:
        super().__init__(plan.seed, AgentMachine, is_traced=is_traced)
        self.plan = plan
        for spec in plan.services:
            self.etcd.put(service_object(spec))
        self.server = ApiServer(self.etcd, self.timeline, self.rng, lag_s=plan.lag_s)
        self.address = Address([self.server], self.rng)
        self.workloads = Workloads(plan, self.timeline, self.rng, self.etcd)
        self.workloads.note = self.note
        self.server.more = self.workloads.answer
        self.nodes = [SimulatedNode(self, name) for name in NODES[: plan.nodes]]
        self.clients: list[Client] = []
        self.of_process: dict[Process, SimulatedNode] = {}
        self._made: dict[Process, SimulatedClient] = {}
        self.slow_dials_until = 0.0
        self.checks = Checks(self)
        self.ending = Ending(self)

    @property
    def unix(self) -> float:
        """Unix time of a clock that is right."""
        return _UNIX_TIME + self.now

    def unix_now(self) -> float:
        """Return Unix time, as the node has it whose process runs."""
        return self._current.unix() if self.machine.current is not None else self.unix

    @property
    def _current(self) -> SimulatedNode:
        process = self.machine.current
        assert process is not None, "a process runs"
        if process not in self.of_process:
            self.of_process[process] = next(n for n in self.nodes if n.process is process)
        return self.of_process[process]

    @property
    def disk(self) -> Disk:
        """The disk of the node whose process runs."""
        return self._current.disk

    def node(self, name: str) -> SimulatedNode:
        return next(node for node in self.nodes if node.name == name)

    # -- what nodes ask for ------------------------------------------------------------------------

    def make_client(self) -> SimulatedClient:
        """Return the client of a process that starts."""
        process = self.machine.current
        assert process is not None, "a process runs"
        client = self.address.client_for(process.loop, self._current.name)
        client.on_begin = self.checks.asked
        client.on_end = self.checks.known.answered
        self._made[process] = client
        return client

    def died(self, process: Process) -> None:
        """Close the connections of a process that has died."""
        if (client := self._made.pop(process, None)) is not None:
            self.address.clients.remove(client)
            client.abort()

    def dial_s(self, client: Client) -> float:
        """Return how long a dial takes."""
        draw = self.rng.random()
        if self.now < self.slow_dials_until:
            return DIAL_S * (0.5 + 0.5 * draw)
        return 0.002 * draw

    def set_state(self, client: Client, state: str) -> None:
        """Have a client be in another state."""
        before, client.state = client.state, state
        client.since = self.now
        if state in (DIALLING, WAITING) and not client.needs_since:
            client.needs_since = self.now
        where = f" to {client.pod}" if client.pod is not None else ""
        self.note(f"{client}: {before} → {state}, {client.service} at {client.node}{where}")
        self.checks.moved(client, before)

    # -- the run -----------------------------------------------------------------------------------

    def installed(self) -> AbstractContextManager[None]:
        """Part of SourceWorld."""
        return installed(self)

    def carry_out(self) -> None:
        """Part of SourceWorld."""
        self.workloads.start()
        for node in self.nodes:
            self.put_node(node.name)
            self.timeline.after(self.rng.random(), node.start)
        for step in self.plan.steps:
            if not step.round:
                self.timeline.at(self.began + step.at, self._take, step)
        self.timeline.after(_LOOK_S, self._look)
        self.run_until(self.began + self.plan.chaos_s)
        self.ending.run()

    def run_until(self, at: float) -> None:
        """Let everything happen up to a time, or to a violation."""
        while self.now < at and not (self.judgements.violations or self.machine.violations):
            self.timeline.run_until(min(at, self.now + 5.0))

    def _look(self) -> None:
        self.checks.look()
        if not self.is_over:
            self.timeline.after(_LOOK_S, self._look)

    # -- steps -------------------------------------------------------------------------------------

    def round_began(self, number: int) -> None:
        """Have happen what is to happen in a round."""
        for step in self.plan.steps:
            if step.round == number:
                self.timeline.after(step.at, self._take_in_time, step)

    def _take_in_time(self, step: Step) -> None:
        if self.now < self.began + self.plan.chaos_s:
            self._take(step)

    def _take(self, step: Step) -> None:
        self.note(f"plan: {step.text}")
        actions: dict[str, Callable[..., object]] = {
            "client": self.begin_client,
            "scale": self._scale,
            "replace": self._replace,
            "autoscaler": self._put_autoscaler,
            "budget": self._put_budget,
            "service": self.put_service,
            "no-service": self._delete_service,
            "node": self.put_node,
            "no-node": self.delete_node,
            "crash": self._crash,
            "start": lambda number: self.nodes[number].start(),
            "busy": self._be_busy,
            "stumble": self._stumble,
            "stall": self._stall,
            "worker-dies": self._end_worker,
            "partition": self._partition,
            "refuse": self._refuse,
            "silent": self._be_silent,
            "cut": self._cut,
            "end-watches": self._end_watches,
            "cut-answer": self._cut_answer,
            "slow": self._be_slow,
            "restart": self._restart,
            "wall": self._jump,
            "disk-full": self._fill_disk,
            "slow-controllers": self._slow_controllers,
            "slow-slices": self._slow_slices,
            "slow-dials": self._slow_dials,
        }
        actions[step.kind](*step.values)

    def begin_client(self, node: int, service: str, stay_s: float, patience_s: float) -> Client:
        """Have a client dial a Service at a node."""
        where = self.nodes[node % len(self.nodes)]
        client = Client(len(self.clients) + 1, where.name, service, stay_s, patience_s)
        self.clients.append(client)
        where.accept(client)
        return client

    def workload(self, number: int) -> Workload:
        return list(self.workloads.all.values())[number % len(self.workloads.all)]

    def _scale(self, number: int, replicas: int) -> None:
        self.checks.waits.trouble(self.workload(number))
        self.checks.someone_scales(self.workload(number))
        self.workloads.scale(self.workload(number), replicas)

    def _replace(self, number: int) -> None:
        for pod in self.workload(number).wanted[:1]:
            self.checks.someone_ends(pod)
            self.checks.waits.trouble(pod.workload)
            self.workloads.end(pod)

    def _put_autoscaler(self, number: int, least: int | None, is_there: bool) -> None:
        spec = self.workload(number).spec
        item = autoscaler_object(spec.namespace, spec.kind, spec.name, least)
        self._put_other("horizontalpodautoscalers", item, is_there)

    def _put_budget(self, number: int, wish: str, value: int | str, is_there: bool) -> None:
        spec = self.workload(number).spec
        item = budget_object(spec.namespace, dict(spec.labels[:1]), {wish: value})
        self._put_other("poddisruptionbudgets", item, is_there)

    def _put_other(self, resource: str, item: dict[str, object], is_there: bool) -> None:
        metadata = item["metadata"]
        assert isinstance(metadata, dict)
        key = metadata["namespace"], metadata["name"]
        self.checks.known.changes(f"forbids {key[0]}")
        if is_there:
            self.workloads.others[resource][key] = item
        else:
            self.workloads.others[resource].pop(key, None)

    def put_service(self, spec: ServiceSpec) -> None:
        """Add a Service, or change it."""
        self.checks.known.service_changes(spec.key)
        self.etcd.put(service_object(spec))
        self.workloads.follow_service(spec.namespace, spec.name)

    def _delete_service(self, namespace: str, name: str) -> None:
        if self.etcd.objects.get("services", name, namespace) is not None:
            key = f"{namespace}/{name}"
            self.checks.known.service_is_deleted(key)
            self.etcd.delete("Service", name, namespace)
            self.workloads.follow_service(namespace, name)

    def put_node(self, name: str) -> None:
        """Add a Node."""
        if self.etcd.objects.get("nodes", name, "") is None:
            self.checks.known.changes(f"node {name}")
            self.checks.known.disturb(0.0)
            self.etcd.put(node_object(name, f"uid-{name}-{self.etcd.revision}"))

    def delete_node(self, name: str) -> None:
        """Delete a Node, and with it what belongs to it."""
        item = self.etcd.objects.get("nodes", name, "")
        if item is not None:
            self.checks.known.changes(f"node {name}")
            self.checks.known.disturb(0.0)
            self.etcd.delete("Node", name, "")
            uid = item["metadata"]["uid"]
            self.timeline.after(_COLLECTED_S * self.rng.random(), self._collect, uid)

    def _collect(self, uid: str) -> None:
        for item in self.etcd.items("leases"):
            owners = item["metadata"].get("ownerReferences") or ()
            if any(owner["uid"] == uid for owner in owners):
                self.etcd.delete("Lease", item["metadata"]["name"], NAMESPACE)

    def _crash(self, number: int, down_s: float, loses_files: bool) -> None:
        node = self.nodes[number % len(self.nodes)]
        node.die(with_workers=not self.plan.keeps_workers)
        self.checks.known.disturb(down_s + _STARTED_S)
        if loses_files:
            node.disk.files.clear()
            self.checks.known.changes(f"files {node.name}")
        self.timeline.after(down_s, node.start)

    def _be_busy(self, number: int, seconds: float) -> None:
        for worker in self.nodes[number % len(self.nodes)].workers[:1]:
            worker.busy_until = max(worker.busy_until, self.now + seconds)
            self.checks.known.disturb(seconds)

    def _stumble(self, number: int, seconds: float, service: str, stay_s: float) -> None:
        """Have a worker be busy once it has answered, as a client comes whose dial takes long."""
        self._slow_dials(3.0)

        def stumble() -> float:
            self.timeline.after(0.0, self.begin_client, number, service, stay_s, 100.0)
            return seconds

        for worker in self.nodes[number % len(self.nodes)].workers[:1]:
            worker.stumbles = stumble

    def _stall(self, number: int, seconds: float, service: str, stay_s: float) -> None:
        """Have a worker be busy when it is asked, and have a client that no one knows."""
        for worker in self.nodes[number % len(self.nodes)].workers[:1]:
            worker.stalls_s = seconds
            self.checks.known.disturb(seconds)
        self.begin_client(number, service, stay_s, 100.0)

    def _end_worker(self, number: int) -> None:
        node = self.nodes[number % len(self.nodes)]
        if node.agent is not None and node.process is not None and node.is_running:
            node.agent.plane.worker.die()
            node.counted_since = self.now
            with node.process:
                node.agent.plane.start_worker()

    def _partition(self, number: int, seconds: float) -> None:
        name = self.nodes[number % len(self.nodes)].name
        self.address.partition(name, seconds)
        self.checks.known.disturb(seconds + _AGAIN_S)

    def _refuse(self, code: int, seconds: float, resource: str) -> None:
        self.server.refuse(code, seconds, resource=resource)
        self.checks.known.disturb(seconds + _AGAIN_S)

    def _be_silent(self, seconds: float) -> None:
        self.server.go_silent(seconds)
        self.checks.known.disturb(seconds + _AGAIN_S)

    def _cut(self) -> None:
        self.server.cut()
        self.checks.known.disturb(_AGAIN_S)

    def _end_watches(self) -> None:
        self.server.end_watches()
        self.checks.known.disturb(_AGAIN_S)

    def _cut_answer(self, resource: str, skip: int, after_bytes: int) -> None:
        self.server.cut_next(Cut(after_bytes=after_bytes, resource=resource, skip=skip))
        self.checks.known.disturb(_AGAIN_S)

    def _be_slow(self, seconds: float, slow_s: float) -> None:
        self.server.slow_s = slow_s
        self.timeline.after(seconds, setattr, self.server, "slow_s", 0.0)
        self.checks.known.disturb(seconds + slow_s + _AGAIN_S)

    def _restart(self, seconds: float) -> None:
        if self.server.is_up:
            self.server.stop()
            self.timeline.after(seconds, self.server.start)
            self.checks.known.disturb(seconds + _AGAIN_S)

    def _jump(self, number: int, skew_s: float) -> None:
        node = self.nodes[number % len(self.nodes)]
        node.skew_s = skew_s
        self.checks.known.changes(f"files {node.name}")

    def _fill_disk(self, number: int, seconds: float) -> None:
        node = self.nodes[number % len(self.nodes)]
        disk = node.disk
        disk.fails_with = 28
        self.timeline.after(seconds, setattr, disk, "fails_with", 0)
        self.checks.known.disturb(seconds + _AGAIN_S)

    def _slow_controllers(self, seconds: float) -> None:
        self.workloads.slow_until = max(self.workloads.slow_until, self.now + seconds)
        self.checks.known.disturb(seconds)

    def _slow_slices(self, seconds: float) -> None:
        self.workloads.slices_slow_until = self.now + seconds
        self.checks.known.disturb(seconds)

    def _slow_dials(self, seconds: float) -> None:
        self.slow_dials_until = max(self.slow_dials_until, self.now + seconds)

    def be_well(self) -> None:
        """Have nothing fail any more, and everything run."""
        self.server.slow_s = 0.0
        self.server.cuts.clear()
        self.server.refusals.clear()
        self.slow_dials_until = 0.0
        for node in self.nodes:
            node.disk.fails_with = 0
            node.start()
            self.put_node(node.name)

    @property
    def open_clients(self) -> list[Client]:
        return [client for client in self.clients if client.state != DONE]
