"""A cluster's Service whose Pods the test runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from userspace_proxy.embedding.blocking import BlockingProxy
from userspace_proxy.facts import PortFacts
from userspace_proxy.model import ServiceKey, SocketAddress
from userspace_proxy.model.pod_endpoints import PodKey, PodPort

from .backend import Backend
from .pod_api import Object
from .pod_runner import PodRunner
from .running_pods import PodLike, RunningPod, SelectingService
from .served_service import RecordingProxy, ServedService


class PodRun(NamedTuple):
    """A Pod that this test runs for one Service."""

    pod: RunningPod
    ports: Mapping[str, PodPort]
    """The Pod's ports, by the Service's port names."""
    like: PodLike


class KubernetesService(ServedService):
    """One Service of a cluster, with the address and backends of one of its ports.

    Args:
        port: The port's name, which may be empty.
        runs: The Pods that run here for it, shared by its ports.
    """

    __slots__ = ("_addresses", "_pods", "_port", "_runner")

    def __init__(
        self,
        proxy: RecordingProxy,
        runner: PodRunner,
        key: ServiceKey,
        port: str,
        runs: dict[str, PodRun],
    ) -> None:
        super().__init__(proxy, key)
        self._addresses: BlockingProxy = proxy
        self._runner = runner
        self._port = port
        self._pods = runs

    def __repr__(self) -> str:
        name = f"{self.key}:{self._port}" if self._port else str(self.key)
        try:
            return f"<Service {name} at {self.address}, {self.stats.state}>"
        except LookupError:
            return f"<Service {name}, not served>"

    @property
    def address(self) -> SocketAddress:
        address = self._addresses.address_of(self.key, self._port)
        if address is None:
            raise LookupError(f"{self.key} is not served")
        return address

    @property
    def backends(self) -> Sequence[Backend]:
        """The backends of this port, sorted by Pod name."""
        runs = [run for _, run in sorted(self._pods.items()) if self._port in run.ports]
        return [run.pod.backends[run.ports[self._port]] for run in runs]

    @property
    def pods(self) -> Mapping[str, RunningPod]:
        """The Pods that run here, by name; assign their backends to change them.

        A Pod that doesn't exist is created with the labels that the Service selects. A Pod that the
        mapping omits is ended; a Pod whose value is itself, or its own backends, continues:
        ``{**web.pods, "web-2": None}`` adds a Pod. Changes are applied on return.
        """
        return {name: run.pod for name, run in sorted(self._pods.items())}

    @pods.setter
    def pods(self, pods: Mapping[str, PodLike | RunningPod]) -> None:
        selected = self._runner.select(self.key)
        for name in self._pods.keys() - pods.keys():
            self._runner.end_pod(self._pods.pop(name).pod)
        there = self._runner.find_pods(selected)
        for name, like in pods.items():
            key, run = PodKey(self.key.namespace, name), self._pods.get(name)
            if isinstance(like, RunningPod):
                if run is None or like is not run.pod:
                    raise ValueError(f"Pod {name} is made of {like!r}, another Pod")
                continue
            goes_on = run is not None and (key in there or run.pod.is_terminating)
            if run is None or like != run.like or not goes_on:
                replaces = like is not None or run is not None
                self._run(key, there, selected, like, replaces=replaces)

    def run_pods(self, like: PodLike = None) -> list[RunningPod]:
        """Run all Pods that the Service selects now in this test; they are ready on return.

        Args:
            like: The backend of each Pod, as for ``service_proxy``, for each of the Service's
                ports; or a mapping by port name. None for a server that answers with the Pod's
                name; Pods that already run continue.

        Raises:
            LookupError: The Service doesn't exist, or selects no Pod.
            ValueError: The Service has no selector, or it or a Pod lacks a named port.
        """
        selected = self._runner.select(self.key)
        there = self._runner.find_pods(selected)
        if not there:
            labels = ", ".join(f"{key}={value}" for key, value in selected.service.selector)
            raise LookupError(f"no Pod in {self.key.namespace} has the labels {labels}")
        return [self._run(k, there, selected, like, replaces=like is not None) for k in there]

    def drain(self, pod: RunningPod) -> None:
        """Delete a Pod; it keeps its connections, and stays terminating until the test ends."""
        self._runner.terminate(pod)

    def views(self) -> list[PortFacts]:
        """Return the facts of this port only."""
        return [view for view in super().views() if view.plan.key.name.port == self._port]

    def served_addresses(self) -> list[SocketAddress]:
        """Return no address: another proxy may get the Service's address."""
        return []

    def _run(
        self,
        key: PodKey,
        there: Mapping[PodKey, Object],
        selected: SelectingService,
        like: PodLike,
        *,
        replaces: bool,
    ) -> RunningPod:
        pod, ports = self._runner.run_pod(key, there.get(key), selected, like, replaces=replaces)
        for port in ports.values():
            pod.backends[port].attach(self._control)
        self._pods[key.name] = PodRun(pod, ports, like)
        return pod
