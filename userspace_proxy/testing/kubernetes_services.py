r"""The Services of a cluster in which nothing runs, for tests: of envtest, KWOK, kind.

::

    with KubernetesServices(kubeconfig) as services:
        web = services["shop/web"]
        web.pods = {"web-1": None, "web-2": lambda request: "hello"}
        assert urlopen(web.url).status == 200

    API server ──Services, Pods──▶ proxy ──▶ backends of this test
               ◀──Pods: created, ready, at the addresses of these backends
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from ..errors import SourceError
from ..model import ServiceKey, SocketAddress
from ..model.pod_endpoints import PodKey, PodPort, WirePod, read_pod
from ..model.wire import convert
from ..sources.kubernetes import KubernetesSource
from ..status.view import ServicePortView, StatusView
from .backends import Backend, BackendLike, make_backend
from .places import BackendPlace
from .pod_api import Object, PodApi, make_pod
from .running_pods import PodFollower, PodLike, RunningPod, SelectingService
from .served_service import EVENTUALLY_S, RecordingProxy, ServedService

_ANSWER_S = 20.0
_POLL_S = 0.005


class KubernetesServices(RecordingProxy):
    """A proxy for the Services of a cluster; ``services["shop/web"]`` is one of them.

    Args:
        kubeconfig: The cluster's. Its user lists and watches Services, EndpointSlices and Pods,
            and, for Pods that run here, creates, patches and deletes Pods and their status.
    """

    def __init__(self, kubeconfig: str) -> None:
        super().__init__(source=KubernetesSource(kubeconfig=kubeconfig, endpoints_from_pods=True))
        self._kubeconfig = kubeconfig
        self._api = PodApi(kubeconfig)
        self._pods: dict[PodKey, RunningPod] = {}
        self._hosts = 0
        self._used: dict[tuple[ServiceKey, str], KubernetesService] = {}

    def __repr__(self) -> str:
        return f"<KubernetesServices of {self._kubeconfig}, {len(self._pods)} Pods run here>"

    def start(self) -> None:
        """Start the proxy, and read the cluster.

        Raises:
            SourceError: It can't be read; the message says why.
        """
        super().start()
        try:
            self._thread.call(self._read())
        except BaseException:
            self.close()
            raise

    async def _read(self) -> None:
        await self._api.open()
        try:
            async with asyncio.timeout(_ANSWER_S):
                await self._proxy.settled()
        except TimeoutError as exc:
            problems = self._proxy.status().source.problems
            what = "; ".join(problems) or f"no answer after {_ANSWER_S:.0f} s"
            raise SourceError(f"cannot read the cluster of {self._kubeconfig}: {what}") from exc

    def __getitem__(self, name: str) -> KubernetesService:
        """Return a Service by ``namespace/name`` or ``namespace/name:port``, once it is served.

        Without a port it is the first one of several.

        Raises:
            LookupError: It isn't served, for the reason in the message.
        """
        text, _, port = name.partition(":")
        namespace, _, last = text.rpartition("/")
        key = ServiceKey(namespace or "default", last)
        if not self._until(lambda: self._is_served(key, port)):
            status = self.status()
            causes = [str(i.cause) for i in status.ignored if i.service == key]
            reasons = causes or status.source.problems or ["there is no such Service or port"]
            raise LookupError(f"{name} is not served: {reasons[0]}")
        if not port:
            service, _ = self._thread.call(self._api.service(key))
            port = service.ports[0].name
        return self._used.setdefault((key, port), KubernetesService(self, key, port))

    def _is_served(self, key: ServiceKey, port: str) -> bool:
        names = [view.plan.key.name for view in self.status().ports]
        return any(name.service == key and port in ("", name.port) for name in names)

    def run_pods(self, service: str, like: PodLike = None) -> list[RunningPod]:
        """Run all Pods here that a Service selects: see ``KubernetesService.run_pods``."""
        return self[service].run_pods(like)

    @property
    def services(self) -> Sequence[KubernetesService]:
        """Part of RecordingProxy: those that the test has used."""
        return tuple(self._used.values())

    def end_services(self) -> None:
        """Part of RecordingProxy: end the Pods that run here; the others are as they were."""
        if not self._thread.is_running:
            return
        try:
            for pod in list(self._pods.values()):
                self.end_pod(pod)
        finally:
            self._thread.call(self._api.close())

    def select(self, key: ServiceKey) -> SelectingService:
        """Return how a Service selects its Pods.

        Raises:
            ValueError: It has no selector.
        """
        selected = SelectingService(*self._thread.call(self._api.service(key)))
        if not selected.service.selector:
            raise ValueError(f"Service {key} has no selector, so it has no Pods")
        return selected

    def find_pods(self, selected: SelectingService) -> dict[PodKey, Object]:
        """Return the Pods that a Service selects now."""
        service = selected.service
        found = self._thread.call(self._api.pods(service.key.namespace, service.selector))
        return {PodKey(service.key.namespace, item["metadata"]["name"]): item for item in found}

    def run_pod(
        self, key: PodKey, written: Object | None, selected: SelectingService, like: PodLike
    ) -> tuple[RunningPod, dict[str, Backend]]:
        """Run a Pod here, for one of the Services that select it; it is in force on return.

        Args:
            written: The Pod; None: it doesn't exist, and is created.

        Returns:
            The Pod, and what serves it by the names of the Service's ports.
        """
        likes = selected.likes(like)
        item = written
        if item is None:
            made = make_pod(key, selected.service, selected.selection)
            item = self._thread.call(self._api.create(made))
        pod = self._pods.get(key)
        if pod is None:
            pod = self._pods[key] = RunningPod(key, written, self._update)
        ports = selected.ports_of(read_pod(convert(item, WirePod)), likes)
        host = self._free_host(selected, likes)
        backends = {name: self._serve(pod, port, likes[name], host) for name, port in ports.items()}
        publishes = selected.selection.publishes_not_ready
        pod.followers |= {
            PodFollower(selected.service.key, backend.address, publishes)
            for backend in backends.values()
        }
        self._update(pod)
        return pod, backends

    def terminate(self, pod: RunningPod) -> None:
        """Delete a Pod that goes on, terminating, until the test ends; in force on return."""
        pod.is_terminating = True
        self._thread.call(self._api.terminate(pod.key))
        self._wait_for(pod)

    def end_pod(self, pod: RunningPod) -> None:
        """End a Pod: it is removed if it was created here, or else as it was before. Idempotent."""
        if self._pods.pop(pod.key, None) is None:
            return
        for backend in pod.backends.values():
            backend.close()
        # A server that has ended has no Pods.
        with contextlib.suppress(SourceError):
            if pod.written is None or pod.is_terminating:
                self._thread.call(self._api.remove(pod.key))
            else:
                self._thread.call(self._api.restore(pod.written))

    def _serve(
        self, pod: RunningPod, port: PodPort, like: BackendLike | None, host: str
    ) -> Backend:
        if (before := pod.backends.pop(port, None)) is not None:
            pod.followers = {f for f in pod.followers if f.address != before.address}
            before.close()
        backend = pod.backends[port] = make_backend(
            like,
            name=pod.name,
            protocol=port.protocol,
            thread=self._thread,
            find_place=partial(BackendPlace, host),
        )
        return backend

    def _free_host(
        self, selected: SelectingService, likes: Mapping[str, BackendLike | None]
    ) -> str:
        """Return the address of a Pod: one of its own, unless a program serves one of its ports."""
        if selected.host == "::1" or any(isinstance(like, list) for like in likes.values()):
            return selected.host
        self._hosts += 1
        return f"127.0.{self._hosts // 250}.{self._hosts % 250 + 1}"

    def _update(self, pod: RunningPod) -> None:
        """Write where a Pod answers, and whether it is ready; in force on return."""
        ips = sorted({backend.address.ip for backend in pod.backends.values()})
        if len(ips) != 1:
            raise ValueError(f"Pod {pod.name}: its ports are at several addresses: {ips}")
        ports = {port: backend.address.port for port, backend in pod.backends.items()}
        running = self._api.set_running(pod.key, ips[0], ports, is_ready=pod.is_ready)
        self._thread.call(running)
        self._wait_for(pod)

    def _wait_for(self, pod: RunningPod) -> None:
        for follower in pod.followers:
            wanted = pod.expected_state(follower)
            if not self._until(partial(self._has_state, follower, wanted)):
                found = follower.state_in(self.status().ports) or "no endpoint"
                raise AssertionError(
                    f"Pod {pod.name} is {wanted}, but after {EVENTUALLY_S:g} s its endpoint "
                    f"{follower.address} of {follower.service} is {found}"
                )

    def _has_state(self, follower: PodFollower, state: str) -> bool:
        return follower.state_in(self.status().ports) == state

    def _until(self, condition: Callable[[], bool]) -> bool:
        deadline, pause = time.monotonic() + EVENTUALLY_S, threading.Event()
        while not condition():
            if time.monotonic() >= deadline:
                return False
            pause.wait(_POLL_S)
        return True


class UsedServices:
    """The Services of a cluster that a test has used, for reports; others are no matter of it."""

    def __init__(self, proxy: KubernetesServices) -> None:
        self._proxy = proxy

    @property
    def services(self) -> Sequence[KubernetesService]:
        """In the order in which they were first used."""
        return self._proxy.services

    def status(self) -> StatusView:
        """Return everything about the proxy, and of Service ports only theirs."""
        status, used = self._proxy.status(), {service.key for service in self.services}
        ports = tuple(p for p in status.ports if p.plan.key.name.service in used)
        ignored = tuple(item for item in status.ignored if item.service in used)
        return replace(status, ports=ports, ignored=ignored)


class _Run(NamedTuple):
    """A Pod that runs here for one Service."""

    pod: RunningPod
    backends: Mapping[str, Backend]
    """What serves it by the names of the Service's ports."""
    like: PodLike


class KubernetesService(ServedService):
    """One Service of a cluster, or one port of it.

    Args:
        port: The port's name, which may be empty.
    """

    def __init__(self, services: KubernetesServices, key: ServiceKey, port: str) -> None:
        super().__init__(services, key)
        self._services = services
        self._port = port
        self._pods: dict[str, _Run] = {}

    def __repr__(self) -> str:
        name = f"{self.key}:{self._port}" if self._port else str(self.key)
        try:
            return f"<Service {name} at {self.address}, {self.stats.state}>"
        except LookupError:
            return f"<Service {name}, not served>"

    @property
    def address(self) -> SocketAddress:
        """Part of ServedService."""
        address = self._services.address_of(self.key, self._port)
        if address is None:
            raise LookupError(f"{self.key} is not served")
        return address

    @property
    def backends(self) -> Sequence[Backend]:
        """What serves this port of the Pods that run here, in the order of their names."""
        served = [run.backends for _, run in sorted(self._pods.items())]
        return [backends[self._port] for backends in served if self._port in backends]

    @property
    def pods(self) -> Mapping[str, RunningPod]:
        """The Pods that run here, by name; may be set to what they are made of.

        A Pod that doesn't exist is created with the labels that the Service selects. A Pod that
        isn't named any more is ended, and one that is made of the same, or of itself, goes on:
        ``{**web.pods, "web-2": None}`` adds one. All is in force on return.
        """
        return {name: run.pod for name, run in sorted(self._pods.items())}

    @pods.setter
    def pods(self, pods: Mapping[str, PodLike | RunningPod]) -> None:
        selected = self._services.select(self.key)
        for name in self._pods.keys() - pods.keys():
            self._services.end_pod(self._pods.pop(name).pod)
        there = self._services.find_pods(selected)
        for name, like in pods.items():
            run = self._pods.get(name)
            if isinstance(like, RunningPod):
                if run is None or like is not run.pod:
                    raise ValueError(f"Pod {name} is made of {like!r}, another Pod")
            elif run is None or like != run.like:
                self._run(PodKey(self.key.namespace, name), there, selected, like)

    def run_pods(self, like: PodLike = None) -> list[RunningPod]:
        """Run all Pods here that the Service selects now; they are ready on return.

        Args:
            like: What each is made of: as a backend of ``service_proxy``, for each port of the
                Service; or a mapping of the names of its ports.

        Raises:
            LookupError: It selects none.
        """
        selected = self._services.select(self.key)
        there = self._services.find_pods(selected)
        if not there:
            labels = ", ".join(f"{key}={value}" for key, value in selected.service.selector)
            raise LookupError(f"no Pod in {self.key.namespace} has the labels {labels}")
        return [self._run(key, there, selected, like) for key in there]

    def drain(self, pod: RunningPod) -> None:
        """Delete a Pod that keeps its connections, and terminates until the test ends."""
        self._services.terminate(pod)

    def views(self) -> list[ServicePortView]:
        """Part of ServedService: only this port."""
        return [view for view in super().views() if view.plan.key.name.port == self._port]

    def served_addresses(self) -> list[SocketAddress]:
        """Part of ServedService: only backends, as other proxies may get its own address."""
        own = (
            backend.address
            for run in self._pods.values()
            for port, backend in run.pod.backends.items()
            if backend.is_own and port.protocol == "TCP"
        )
        return list(own)

    def _run(
        self, key: PodKey, there: Mapping[PodKey, Object], selected: SelectingService, like: PodLike
    ) -> RunningPod:
        pod, backends = self._services.run_pod(key, there.get(key), selected, like)
        for backend in backends.values():
            backend.attach(self._control)
        self._pods[key.name] = _Run(pod, backends, like)
        return pod
