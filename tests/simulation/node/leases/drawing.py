"""Draws plans: seeds in, plans out.

Rule 1: a plan has few kinds of trouble, and many a time none: what fails may hide what is wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random

from .plan import Plan, ServiceSpec, Step, WorkloadSpec

_SHAPES = (
    "two-services",
    "two-workloads",
    "two-namespaces",
    "headless",
    "stranger",
    "uncounted",
    "statefulset",
    "no-idle",
    "short-hold",
)
_TROUBLES = (
    "crashes",
    "busy",
    "stumbles",
    "stalls",
    "orphans",
    "worker-dies",
    "partitions",
    "refusals",
    "silence",
    "cuts",
    "lost-answers",
    "slow-server",
    "server-restarts",
    "wall-clocks",
    "full-disks",
    "slow-controllers",
    "slow-slices",
    "slow-dials",
    "scaling",
    "undoing",
    "replacing",
    "autoscalers",
    "budgets",
    "services-change",
    "nodes-change",
)
_OFTEN = ("crashes", "crashes", "lost-answers", "partitions", "slow-slices", "stumbles", "undoing")
"""Those that need luck to matter."""
_HOLD_S = 300
_PATIENCE_S = 280.0


def make_plan(seed: int) -> Plan:
    """Return the plan of a seed."""
    return _Drawing(seed).plan()


class _Drawing:
    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.rng = rng = Random(seed)
        shapes = rng.sample(_SHAPES, rng.choice((0, 0, 1, 1, 2, 3)))
        drawn = rng.sample((*_TROUBLES, *_OFTEN), rng.choice((0, 0, 1, 1, 2, 2, 3)))
        troubles = list(dict.fromkeys(drawn))
        self.features = {*shapes, *troubles}
        self.troubles = troubles
        self.chaos_s = rng.choice((30.0, 45.0, 60.0))
        self.nodes = rng.choice((2, 2, 2, 3))
        self.steps: list[Step] = []
        self.round = 0
        """Of which round the times of steps are now."""
        self.workloads: list[WorkloadSpec] = []
        self.services: list[ServiceSpec] = []

    def has(self, feature: str) -> bool:
        return feature in self.features

    def plan(self) -> Plan:
        rng = self.rng
        self._draw_objects()
        self._draw_clients()
        for trouble in self.troubles:
            for _ in range(rng.choice((1, 1, 2, 4))):
                self._TROUBLES[trouble](self, self._moment())
        self.round = 0
        plan = Plan(
            self.seed,
            frozenset(self.features),
            tuple(self.workloads),
            tuple(self.services),
            tuple(sorted(self.steps, key=lambda step: step.at)),
            self.chaos_s,
            nodes=self.nodes,
            start_s=rng.choice((0.2, 1.0, 4.0)),
            end_s=rng.choice(
                (4.0, 20.0, 20.0) if self.has("slow-slices") else (0.1, 1.0, 4.0, 20.0)
            ),
            controller_s=rng.choice((0.02, 0.3, 1.5)),
            slices_s=rng.choice((0.02, 0.3, 1.0)),
            lag_s=rng.choice((0.0, 0.02, 0.5)),
            drain_s=15.0 if self.has("orphans") else rng.choice((3.0, 8.0, 15.0)),
            keeps_workers=self.has("orphans") or rng.random() < 0.5,
            keeps_files=rng.random() < 0.75,
            fails_wakes_s=rng.choice((0.0, 0.0, 0.0, 3.0)),
            has_steady_end=rng.random() < 0.1,
        )
        return self._rest_in_a_row(plan) if rng.random() < 0.03 else plan

    def _rest_in_a_row(self, plan: Plan) -> Plan:
        """Have an agent die after a second round, before the pods of the first one end."""
        rng = self.rng
        if len(self.workloads) == 1:
            other = WorkloadSpec("blog", "deployment", "web", (("app", "web"),))
            self.workloads.append(other)
            self._service(other, "web", other.labels)
        down_s = 0.3 * rng.random()
        return replace(
            plan,
            features=plan.features | {"rest-in-a-row"},
            workloads=tuple(self.workloads),
            services=tuple(s if s.is_headless else replace(s, idle_s=3) for s in self.services),
            steps=(
                Step(rng.random(), "slow-controllers", (9.0,), round=1),
                Step(rng.uniform(1.0, 3.0), "crash", (rng.randrange(self.nodes), down_s, False), 2),
                *(step for step in plan.steps if step.kind == "client" and not step.round),
            ),
            keeps_files=True,
        )

    # -- objects -----------------------------------------------------------------------------------

    def _draw_objects(self) -> None:
        kind = "statefulset" if self.has("statefulset") else "deployment"
        labels = (("app", "web"), ("tier", "shop"))
        web = WorkloadSpec("shop", kind, "web", labels)
        self.workloads.append(web)
        first = self._service(web, "web", labels[:1])
        if self.has("two-services"):
            more = self._service(web, "also", labels)
            if self.rng.random() < 0.3:
                self.services[-1] = replace(more, idle_s=0)
        if self.has("two-workloads"):
            api = WorkloadSpec("shop", "deployment", "api", (("app", "api"),))
            self.workloads.append(api)
            self._service(api, "api", api.labels)
        if self.has("two-namespaces"):
            other = WorkloadSpec("blog", "deployment", "web", labels[:1])
            self.workloads.append(other)
            self._service(other, "web", other.labels)
        if self.has("headless"):
            wake = self.rng.choice((web.text, ""))
            self._add(replace(first, name="pods", hold_s=0, idle_s=0, wake=wake, is_headless=True))
        if self.has("stranger"):
            # It names the workload, and doesn't select its pods, or not only these.
            selector = self.rng.choice(((("app", "other"),), (("run", "web"),), ()))
            self._add(replace(first, name="stranger", selector=selector))
        if self.has("uncounted"):
            hold_s, wake = self.rng.choice(((0, ""), (_HOLD_S, ""), (0, web.text)))
            self._add(replace(first, name="uncounted", hold_s=hold_s, wake=wake, idle_s=0))

    def _service(
        self, workload: WorkloadSpec, name: str, selector: tuple[tuple[str, str], ...]
    ) -> ServiceSpec:
        rng = self.rng
        idle_s = 0 if self.has("no-idle") else rng.choice((1, 3, 3, 6, 12))
        hold_s = rng.choice((5, 20)) if self.has("short-hold") else _HOLD_S
        text = workload.text
        return self._add(ServiceSpec(workload.namespace, name, 0, selector, hold_s, text, idle_s))

    def _add(self, spec: ServiceSpec) -> ServiceSpec:
        made = replace(spec, number=len(self.services))
        self.services.append(made)
        return made

    def _draw_clients(self) -> None:
        rng = self.rng
        for _ in range(rng.choice((1, 2, 3, 6))):
            # In bursts: some come as others are about to rest.
            at = self._moment()
            for _ in range(rng.choice((1, 1, 2, 5))):
                at += rng.choice((0.0, 0.05, 1.0, 4.0)) * rng.random()
                stay_s = rng.choice((0.0, 0.3, 2.0, 8.0, 30.0)) * (0.2 + 0.8 * rng.random())
                patience_s = rng.choice((_PATIENCE_S, _PATIENCE_S, 3.0))
                service = rng.choice([s for s in self.services if not s.is_headless]).key
                node = rng.randrange(self.nodes)
                self._step(min(at, self.chaos_s), "client", node, service, stay_s, patience_s)

    def _moment(self) -> float:
        """Draw a time, often one of a round, in which it may matter."""
        if self.rng.random() < 0.4:
            self.round = 0
            return self.rng.uniform(0.0, self.chaos_s)
        self.round = self.rng.choice((1, 1, 1, 2, 2, 3))
        return self.rng.choice((0.1, 1.5, 2.5, 4.0, 12.0)) * self.rng.random()

    def _step(self, at: float, kind: str, *values: object) -> None:
        self.steps.append(Step(at, kind, values, self.round))

    # -- troubles ----------------------------------------------------------------------------------

    def _crash(self, at: float) -> None:
        rng = self.rng
        down_s = rng.choice((0.05, 0.05, 1.0, 5.0, 30.0)) * (0.3 + 0.7 * rng.random())
        if self.round and rng.random() < 0.5:
            # Just after its answer, or after what came of it.
            at = rng.uniform(1.0, 2.0)
        node = rng.randrange(self.nodes)
        self._step(at, "crash", node, down_s, rng.random() < 0.1)

    def _client(self, at: float, node: int, stay_s: float) -> None:
        service = self.rng.choice([s for s in self.services if not s.is_headless]).key
        self._step(min(at, self.chaos_s), "client", node, service, stay_s, _PATIENCE_S)

    def _stumble(self, at: float) -> None:
        rng = self.rng
        service = rng.choice([s for s in self.services if not s.is_headless]).key
        at = 0.02 * rng.random() if self.round else at
        seconds = 0.9 * rng.random()
        self._step(at, "stumble", rng.randrange(self.nodes), seconds, service, 10.0 * rng.random())

    def _stall(self, at: float) -> None:
        rng = self.rng
        service = rng.choice([s for s in self.services if not s.is_headless]).key
        at = 0.002 * rng.random() if self.round else at
        node, seconds = rng.randrange(self.nodes), rng.uniform(0.5, 6.0)
        self._step(at, "stall", node, seconds, service, 20.0 * rng.random())

    def _orphan(self, _at: float) -> None:
        """Have a client's connection outlive an agent, in a worker that reports to no one."""
        rng = self.rng
        self.round, at = 0, rng.uniform(10.0, self.chaos_s - 10.0)
        node = rng.randrange(self.nodes)
        self._client(at - 0.5 * rng.random(), node, 40.0 * rng.random())
        self._step(at, "crash", node, 0.1 * rng.random(), False)

    def _busy(self, at: float) -> None:
        if self.round and self.rng.random() < 0.4:
            # A client that comes just then is unknown for as long as an answer may take.
            node, at = self.rng.randrange(self.nodes), 0.1 * self.rng.random()
            self._client(at, node, 10.0)
            self._step(at + 0.005, "busy", node, self.rng.uniform(0.5, 5.0))
            return
        seconds = self.rng.choice((0.05, 0.3, 0.8, 2.0))
        for _ in range(self.rng.choice((1, 4))):
            self._step(at, "busy", self.rng.randrange(self.nodes), seconds * self.rng.random())
            at = min(self.chaos_s, at + self.rng.random())

    def _end_worker(self, at: float) -> None:
        self._step(at, "worker-dies", self.rng.randrange(self.nodes))

    def _partition(self, at: float) -> None:
        seconds = self.rng.choice((1.0, 6.0, 12.0, 25.0)) * self.rng.random()
        self._step(at, "partition", self.rng.randrange(self.nodes), seconds)

    def _refuse(self, at: float) -> None:
        rng = self.rng
        resources = ("", "leases", "deployments", "nodes", "poddisruptionbudgets")
        code = rng.choice((403, 429, 500, 500, 503, 504))
        self._step(at, "refuse", code, rng.choice((1.0, 5.0, 15.0)), rng.choice(resources))

    def _silent(self, at: float) -> None:
        self._step(at, "silent", self.rng.choice((1.0, 4.0, 7.0, 15.0)) * self.rng.random())

    def _cut(self, at: float) -> None:
        self._step(at, self.rng.choice(("cut", "end-watches")))

    def _cut_answer(self, at: float) -> None:
        rng = self.rng
        scales = f"{self.workloads[0].kind}s"
        if self.round and rng.random() < 0.7:
            # The next ones are the updates to zero.
            for _ in range(rng.choice((1, 2))):
                self._step(0.8 * rng.random(), "cut-answer", scales, 0, rng.choice((0, 20)))
            self._client(1.0 + 2.0 * rng.random(), rng.randrange(self.nodes), 10.0)
            return
        resource = rng.choice((scales, scales, "leases"))
        self._step(at, "cut-answer", resource, rng.choice((0, 1, 2)), rng.choice((0, 20)))

    def _slow(self, at: float) -> None:
        self._step(at, "slow", self.rng.choice((5.0, 20.0)), self.rng.choice((0.3, 2.0, 6.0)))

    def _restart(self, at: float) -> None:
        self._step(at, "restart", self.rng.choice((0.5, 4.0, 12.0)))

    def _jump(self, at: float) -> None:
        self._step(
            at, "wall", self.rng.randrange(self.nodes), self.rng.choice((-3600.0, -7.0, 7.0, 60.0))
        )

    def _fill(self, at: float) -> None:
        self._step(at, "disk-full", self.rng.randrange(self.nodes), self.rng.choice((2.0, 20.0)))

    def _slow_controllers(self, at: float) -> None:
        self._step(at, "slow-controllers", self.rng.choice((1.0, 4.0, 9.0)))

    def _slow_slices(self, at: float) -> None:
        at = self.rng.uniform(0.0, 1.0) if self.round else at
        seconds = self.rng.choice((12.0, 13.0) if self.round else (1.0, 6.0, 12.0))
        self._step(at, "slow-slices", seconds)
        if self.round:
            self._client(at + 1.0 + 2.0 * self.rng.random(), self.rng.randrange(self.nodes), 20.0)

    def _slow_dials(self, at: float) -> None:
        self._step(at, "slow-dials", self.rng.choice((3.0, 20.0)))

    def _undo(self, _at: float) -> None:
        """Have someone undo an update to zero before a controller has seen it."""
        self.round = self.round or 1
        self._step(self.rng.random(), "slow-controllers", 4.0)
        number = self.rng.randrange(len(self.workloads))
        self._step(self.rng.uniform(1.2, 3.0), "scale", number, 1)
        self._client(3.0, self.rng.randrange(self.nodes), 10.0)

    def _scale(self, at: float) -> None:
        number, replicas = self.rng.randrange(len(self.workloads)), self.rng.choice((0, 1, 2, 2))
        self._step(at, "scale", number, replicas)
        if replicas > 1 and self.rng.random() < 0.7:
            self._step(min(self.chaos_s, at + 10.0 * self.rng.random()), "scale", number, 1)

    def _replace(self, at: float) -> None:
        self._step(at, "replace", self.rng.randrange(len(self.workloads)))

    def _autoscale(self, at: float) -> None:
        number, least = self.rng.randrange(len(self.workloads)), self.rng.choice((None, 0, 1, 2))
        self._step(at, "autoscaler", number, least, True)
        if self.rng.random() < 0.5:
            self._step(min(self.chaos_s, at + 15.0), "autoscaler", number, least, False)

    def _budget(self, at: float) -> None:
        wishes = (("minAvailable", 1), ("maxUnavailable", 0), ("minAvailable", 0))
        number = self.rng.randrange(len(self.workloads))
        wish, value = self.rng.choice((*wishes, ("maxUnavailable", 1)))
        self._step(at, "budget", number, wish, value, True)
        if self.rng.random() < 0.5:
            self._step(min(self.chaos_s, at + 15.0), "budget", number, wish, value, False)

    def _change_service(self, at: float) -> None:
        rng = self.rng
        spec = rng.choice(self.services)
        if rng.random() < 0.3:
            self._step(at, "no-service", spec.namespace, spec.name)
            self._step(min(self.chaos_s, at + rng.choice((1.0, 10.0))), "service", spec)
            return
        changes = (
            {"idle_s": rng.choice((0, 2, 9))},
            {"wake": rng.choice(("", "deployment/api", spec.wake))},
            {"hold_s": rng.choice((0, _HOLD_S))},
            {"selector": rng.choice(((("run", "x"),), spec.selector))},
        )
        self._step(at, "service", replace(spec, **rng.choice(changes)))
        if rng.random() < 0.6:
            self._step(min(self.chaos_s, at + 10.0 * rng.random()), "service", spec)

    def _change_nodes(self, at: float) -> None:
        rng = self.rng
        if rng.random() < 0.5:
            if rng.random() < 0.5:
                self.round = 0
                at = rng.choice((0.0, rng.uniform(0.0, self.chaos_s)))
            self._step(at, "node", "dave")
            if rng.random() < 0.3:
                later = self.round or self.chaos_s
                self._step(rng.uniform(at, at + later), "no-node", "dave")
            return
        name = ("alice", "bob", "carol")[rng.randrange(self.nodes)]
        self._step(at, "no-node", name)
        self._step(min(self.chaos_s, at + rng.choice((0.5, 5.0, 20.0))), "node", name)

    _TROUBLES: dict[str, Callable[[_Drawing, float], None]] = {  # noqa: RUF012
        "crashes": _crash,
        "busy": _busy,
        "stumbles": _stumble,
        "stalls": _stall,
        "orphans": _orphan,
        "worker-dies": _end_worker,
        "partitions": _partition,
        "refusals": _refuse,
        "silence": _silent,
        "cuts": _cut,
        "lost-answers": _cut_answer,
        "slow-server": _slow,
        "server-restarts": _restart,
        "wall-clocks": _jump,
        "full-disks": _fill,
        "slow-controllers": _slow_controllers,
        "slow-slices": _slow_slices,
        "slow-dials": _slow_dials,
        "scaling": _scale,
        "undoing": _undo,
        "replacing": _replace,
        "autoscalers": _autoscale,
        "budgets": _budget,
        "services-change": _change_service,
        "nodes-change": _change_nodes,
    }
