"""Runs a cluster's Pods in a test: their backends, and their state in the API server.

    run ─▶ backends listen ─▶ status and annotation of the Pod ─▶ watch ─▶ endpoints applied

Rule 1: a write returns once it is applied in each Service for which the Pod runs.
Rule 2: at the end, Pods created or drained here are gone, and others have their former state.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Mapping
from functools import partial

from userspace_proxy.clocks import Clocks
from userspace_proxy.embedding.loop_thread import LoopThread
from userspace_proxy.errors import SourceError
from userspace_proxy.facts import StatusFacts
from userspace_proxy.model import ServiceKey, SocketAddress
from userspace_proxy.model.pod_endpoints import PodKey, PodPort, read_pod
from userspace_proxy.model.wire import WirePod, convert

from .backend_arguments import BackendLike, as_command
from .backends import make_backend
from .places import BackendPlace
from .pod_api import Object, PodApi, make_pod
from .running_pods import PodFollower, PodLike, RunningPod, SelectingService
from .served_service import EVENTUALLY_S

_POLL_S = 0.005


class PodRunner:
    """One cluster's Pods that run in this test.

    Args:
        api: The cluster's Pods in the API server.
        status: Returns the status of the proxy whose endpoints follow the Pods.
    """

    def __init__(self, api: PodApi, status: Callable[[], StatusFacts]) -> None:
        self._api = api
        self._status = status
        self._thread: LoopThread
        self._pods: dict[PodKey, RunningPod] = {}
        self._hosts = 0

    def __len__(self) -> int:
        return len(self._pods)

    def start(self, thread: LoopThread) -> None:
        """Use the proxy's thread for backends and requests."""
        self._thread = thread

    def close(self) -> None:
        """End all Pods. Idempotent."""
        for pod in list(self._pods.values()):
            self.end_pod(pod)

    def select(self, key: ServiceKey) -> SelectingService:
        """Return a Service, which must select Pods.

        Raises:
            LookupError: The Service doesn't exist.
            ValueError: The Service has no selector.
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
        self,
        key: PodKey,
        written: Object | None,
        selected: SelectingService,
        like: PodLike,
        *,
        replaces: bool,
    ) -> tuple[RunningPod, dict[str, PodPort]]:
        """Run a Pod here for one of the Services that select it; applied on return.

        Args:
            written: The existing Pod; None to create it.
            replaces: Whether to replace the current servers of its ports, instead of keeping them.

        Returns:
            The Pod, and its ports by the Service's port names.
        """
        likes = selected.likes(like)
        item = written
        if item is None:
            made = make_pod(key, selected.service, selected.selection)
            item = self._thread.call(self._api.create(made))
        pod = self._pods.get(key)
        if pod is None or pod.uid != item["metadata"]["uid"]:
            for backend in pod.backends.values() if pod is not None else ():
                backend.close()
            pod = self._pods[key] = RunningPod(key, item, self._update, is_ours=written is None)
        ports = selected.ports_of(read_pod(convert(item, WirePod)), likes)
        for port in ports.values() if replaces else ():
            if port in pod.backends:
                pod.backends.pop(port).close()
        host = self._free_host(pod, selected, likes)
        for name, port in ports.items():
            if port not in pod.backends:
                self._serve(pod, port, likes[name], host)
        publishes = selected.selection.publishes_not_ready
        pod.followers |= {PodFollower(selected.service.key, p, publishes) for p in ports.values()}
        self._update(pod)
        return pod, ports

    def terminate(self, pod: RunningPod) -> None:
        """Delete a Pod, which stays terminating until the test ends; applied on return."""
        pod.is_terminating = True
        self._thread.call(self._api.terminate(pod.key))
        self._wait_for(pod)

    def end_pod(self, pod: RunningPod) -> None:
        """Remove a Pod that was created or drained here; restore any other Pod. Idempotent."""
        if self._pods.pop(pod.key, None) is None:
            return
        for backend in pod.backends.values():
            backend.close()
        # If the API server has ended, it has no Pods to remove or restore.
        with contextlib.suppress(SourceError):
            if pod.is_ours or pod.is_terminating:
                self._thread.call(self._api.remove(pod.key))
            else:
                self._thread.call(self._api.restore(pod.written))

    def _serve(self, pod: RunningPod, port: PodPort, like: BackendLike | None, host: str) -> None:
        pod.backends[port] = make_backend(
            like,
            name=pod.name,
            protocol=port.protocol,
            thread=self._thread,
            find_place=partial(BackendPlace, host),
        )

    def _free_host(
        self, pod: RunningPod, selected: SelectingService, likes: Mapping[str, BackendLike | None]
    ) -> str:
        """Return a Pod's address; a new Pod gets ``selected.host`` (IPv6, programs) or its own."""
        if pod.backends:
            return next(iter(pod.backends.values())).address.ip
        if selected.host == "::1" or any(as_command(like) for like in likes.values()):
            return selected.host
        self._hosts += 1
        return f"127.0.{self._hosts // 250}.{self._hosts % 250 + 1}"

    def _update(self, pod: RunningPod) -> None:
        """Write a Pod's state, applied on return; raise ValueError if it has several addresses."""
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
            address = pod.backends[follower.port].address
            if not holds_soon(partial(self._has_state, follower, address, wanted)):
                found = self._state(follower, address) or "no endpoint"
                raise AssertionError(
                    f"Pod {pod.name} is {wanted}, but after {EVENTUALLY_S:g} s its endpoint "
                    f"{address} of {follower.service} is {found}"
                )

    def _has_state(self, follower: PodFollower, address: SocketAddress, state: str) -> bool:
        return self._state(follower, address) == state

    def _state(self, follower: PodFollower, address: SocketAddress) -> str:
        return follower.state_in(self._status().ports, address)


def holds_soon(condition: Callable[[], bool]) -> bool:
    """Wait for a condition; return whether it holds before the timeout."""
    deadline, pause = Clocks.monotonic() + EVENTUALLY_S, threading.Event()
    while not condition():
        if Clocks.monotonic() >= deadline:
            return False
        pause.wait(_POLL_S)
    return True
