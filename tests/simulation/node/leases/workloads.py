"""Workloads of a cluster: their scales at the API server, and the controllers that follow.

    PUT scale ──▶ replicas ──[controller]──▶ pods ──[controller]──▶ slices, each a while later

Rule 1: a pod that is told to end terminates, serves for a while, and is gone with its connections.
Rule 2: each change of a workload, also of its status, is another version of its scale.
Rule 3: a controller that comes late sees the last number of replicas only.

Source: Kubernetes' controllers of Deployments and of EndpointSlices.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from random import Random
from typing import Any

from ...timeline import Timeline
from ..api_etcd import Etcd
from ..api_exchange import Exchange
from ..api_requests import Target, status
from ..api_writes import Answer
from .objects import Item, slice_object
from .plan import Plan, WorkloadSpec

STARTING, READY, ENDING, GONE = "starting", "ready", "ending", "gone"
_PLURALS = {"deployments": "deployment", "statefulsets": "statefulset"}


class Pod:
    """One pod."""

    def __init__(self, workload: Workload, number: int) -> None:
        self.workload = workload
        self.ip = f"10.244.{number // 200}.{number % 200 + 1}"
        self.state = STARTING
        self.listed_at = float("inf")
        """When a slice had it first, as ready."""
        self.known_at = float("inf")
        """When a slice had it first."""

    @property
    def is_serving(self) -> bool:
        """Whether it takes connections."""
        return self.state in (READY, ENDING)

    def __str__(self) -> str:
        return self.ip


class Workload:
    """One Deployment or StatefulSet."""

    def __init__(self, spec: WorkloadSpec, version: str) -> None:
        self.spec = spec
        self.replicas = spec.replicas
        self.version = version
        self.pods: list[Pod] = []
        self.scaled_at = 0.0
        """When the number of replicas changed last."""

    @property
    def wanted(self) -> list[Pod]:
        """Those that aren't about to end."""
        return [pod for pod in self.pods if pod.state in (STARTING, READY)]

    def __str__(self) -> str:
        return f"{self.spec.namespace} {self.spec.text}"

    def as_scale(self) -> Item:
        """Return its subresource ``scale``."""
        selector = ",".join(f"{name}={value}" for name, value in self.spec.labels)
        return {
            "kind": "Scale",
            "apiVersion": "autoscaling/v1",
            "metadata": {
                "namespace": self.spec.namespace,
                "name": self.spec.name,
                "resourceVersion": self.version,
            },
            "spec": {"replicas": self.replicas} if self.replicas else {},
            "status": {"replicas": len(self.pods), "selector": selector},
        }


class Workloads:
    """All of a cluster, and what lists and scales them."""

    def __init__(self, plan: Plan, timeline: Timeline, rng: Random, etcd: Etcd) -> None:
        self.plan = plan
        self.timeline = timeline
        self.rng = rng
        self.etcd = etcd
        self.all: dict[tuple[str, str, str], Workload] = {}
        self.pods: dict[str, Pod] = {}
        """Those that there are or were, by address."""
        self.others: dict[str, dict[tuple[str, str], Item]] = {
            "horizontalpodautoscalers": {},
            "poddisruptionbudgets": {},
        }
        """Objects of which lists are asked for."""
        self.slow_until = 0.0
        """Until then controllers of workloads follow nothing."""
        self.slices_slow_until = 0.0
        """Until then slices aren't written."""
        self.scaling: Callable[[Workload, int, str], None] = lambda _of, _to, _by: None
        """Called before a request of a node changes the number of replicas."""
        self.changed: Callable[[Workload], None] = lambda _of: None
        """Called once the number of replicas has changed."""
        self.ending: Callable[[Pod], None] = lambda _pod: None
        """Called before a pod is gone."""
        self.note: Callable[[str], object] = lambda _text: None
        for spec in plan.workloads:
            workload = Workload(spec, str(etcd.touch()))
            self.all[spec.namespace, spec.kind, spec.name] = workload

    def start(self) -> None:
        """Have all pods of the beginning run."""
        for workload in self.all.values():
            for _ in range(workload.replicas):
                self._make(workload).state = READY
        for item in self.etcd.items("services"):
            metadata = item["metadata"]
            self._write_slice(metadata["namespace"], metadata["name"])

    # -- the API -----------------------------------------------------------------------------------

    def answer(self, exchange: Exchange, target: Target) -> Answer | None:
        """Return the answer to a request; None: it is about something else."""
        if target.resource in self.others:
            of = self.others[target.resource]
            items = [item for (namespace, _), item in of.items() if namespace == target.namespace]
            return 200, {"kind": "List", "metadata": {}, "items": items}
        if target.part != "scale":
            return None
        workload = self.all.get((target.namespace, _PLURALS[target.resource], target.name))
        if workload is None:
            return status(404, "NotFound", f'{target.resource} "{target.name}" not found')
        if exchange.method == "PUT":
            return self._put(workload, exchange.body or {}, exchange.client.node)
        return 200, workload.as_scale()

    def _put(self, workload: Workload, body: Mapping[str, Any], node: str) -> Answer:
        # Without one, it is whatever the version is.
        if body["metadata"].get("resourceVersion", workload.version) != workload.version:
            return status(409, "Conflict", "the object has been modified")
        replicas = body["spec"].get("replicas", 0)
        self.scaling(workload, replicas, node)
        self.scale(workload, replicas)
        return 200, workload.as_scale()

    def scale(self, workload: Workload, replicas: int) -> None:
        """Change the number of replicas, for a node or for another program."""
        if replicas == workload.replicas:
            return
        workload.replicas, workload.scaled_at = replicas, self.timeline.now
        self._bump(workload)
        self.changed(workload)
        self._follow_later(workload)

    def _bump(self, workload: Workload) -> None:
        workload.version = str(self.etcd.touch())

    # -- controllers -------------------------------------------------------------------------------

    def _follow_later(self, workload: Workload) -> None:
        self.timeline.after(self.plan.controller_s * self.rng.random(), self._follow, workload)

    def _follow(self, workload: Workload) -> None:
        """Have as many pods as are wanted."""
        if self.slow_until > self.timeline.now:
            self.timeline.at(self.slow_until, self._follow, workload)
            return
        wanted = workload.wanted
        for _ in range(workload.replicas - len(wanted)):
            pod = self._make(workload)
            self._tell(pod)
            delay_s = self.plan.start_s * (0.3 + 0.7 * self.rng.random())
            self.timeline.after(delay_s, self._get_ready, pod)
        # Those that aren't ready end first.
        by_state = sorted(wanted, key=lambda pod: pod.state == READY)
        for pod in by_state[: max(0, len(wanted) - workload.replicas)]:
            self.end(pod)

    def _make(self, workload: Workload) -> Pod:
        pod = Pod(workload, len(self.pods))
        self.pods[pod.ip] = pod
        workload.pods.append(pod)
        return pod

    def _get_ready(self, pod: Pod) -> None:
        if pod.state == STARTING:
            self._change(pod, READY)

    def end(self, pod: Pod) -> None:
        """Tell a pod to end; another one follows if one is wanted."""
        if pod.state in (STARTING, READY):
            self._change(pod, ENDING)
            self.timeline.after(self.plan.end_s * (0.2 + 0.8 * self.rng.random()), self._go, pod)
            self._follow_later(pod.workload)

    def _go(self, pod: Pod) -> None:
        self.ending(pod)
        pod.workload.pods.remove(pod)
        self._change(pod, GONE)

    def _change(self, pod: Pod, state: str) -> None:
        pod.state = state
        self.note(f"pod {pod} of {pod.workload}: {state}")
        self._tell(pod)

    def _tell(self, pod: Pod) -> None:
        """Have the workload's status, and slices, follow a pod."""
        self._bump(pod.workload)
        for item in self.etcd.items("services"):
            metadata = item["metadata"]
            if pod in self._selected(item):
                delay_s = self.plan.slices_s * self.rng.random()
                self.timeline.after(
                    delay_s, self._write_slice, metadata["namespace"], metadata["name"]
                )
        self._ask_for_slices(pod)

    def _ask_for_slices(self, pod: Pod) -> None:
        """Have the slices of all Services follow that have had a pod which is gone."""
        if pod.state != GONE:
            return
        for item in self.etcd.items("endpointslices"):
            if any(pod.ip in endpoint["addresses"] for endpoint in item["endpoints"]):
                namespace = item["metadata"]["namespace"]
                service = item["metadata"]["labels"]["kubernetes.io/service-name"]
                delay_s = self.plan.slices_s * self.rng.random()
                self.timeline.after(delay_s, self._write_slice, namespace, service)

    def follow_service(self, namespace: str, name: str) -> None:
        """Have the slice of a Service that has changed follow."""
        delay_s = self.plan.slices_s * self.rng.random()
        self.timeline.after(delay_s, self._write_slice, namespace, name)

    def _selected(self, service: Item) -> Iterator[Pod]:
        """Yield the pods that a Service selects."""
        selector = (service["spec"].get("selector") or {}).items()
        for (namespace, _, _), workload in self.all.items():
            is_here = namespace == service["metadata"]["namespace"]
            if selector and is_here and selector <= dict(workload.spec.labels).items():
                yield from workload.pods

    def _write_slice(self, namespace: str, name: str) -> None:
        if self.slices_slow_until > self.timeline.now:
            self.timeline.at(self.slices_slow_until, self._write_slice, namespace, name)
            return
        service = self.etcd.objects.get("services", name, namespace)
        before = self.etcd.objects.get("endpointslices", f"{name}-1", namespace)
        if service is None:
            if before is not None:
                self.etcd.delete("EndpointSlice", f"{name}-1", namespace)
            return
        pods = list(self._selected(dict(service)))
        item = slice_object(namespace, name, map(_endpoint, pods))
        if before is None or before["endpoints"] != item["endpoints"]:
            for pod in pods:
                pod.known_at = min(pod.known_at, self.timeline.now)
                if pod.state == READY:
                    pod.listed_at = min(pod.listed_at, self.timeline.now)
            self.note(f"put slice of {namespace}/{name}: {', '.join(map(_shown, pods))}")
            self.etcd.put(item)


def _shown(pod: Pod) -> str:
    return f"{pod} {pod.state}"


def _endpoint(pod: Pod) -> Item:
    is_ready = pod.state == READY
    return {
        "addresses": [pod.ip],
        "nodeName": "far",
        "conditions": {
            "ready": is_ready,
            "serving": pod.is_serving,
            "terminating": pod.state == ENDING,
        },
    }
