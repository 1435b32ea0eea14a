"""A cluster's Pods that run in a test, with their backends and the endpoints that follow them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from userspace_proxy.facts import PortFacts
from userspace_proxy.model import IPFamily, Service, ServiceKey, SocketAddress
from userspace_proxy.model.pod_endpoints import PodEndpoint, PodKey, PodPort, PodSelection

from .backend import Backend
from .backends import BackendLike
from .pod_api import Object

PodLike = BackendLike | Mapping[str, BackendLike | None] | None
"""The backends of a Pod: one kind for all ports of the Service, or one kind for each port name."""


@dataclass(frozen=True, slots=True)
class SelectingService:
    """A Service that selects Pods, with the target ports and families of its endpoints."""

    service: Service
    selection: PodSelection

    @property
    def host(self) -> str:
        """The loopback address of Pods that run programs, or whose Service has no IPv4."""
        return "127.0.0.1" if IPFamily.IPV4 in self.selection.families else "::1"

    def likes(self, like: PodLike) -> dict[str, BackendLike | None]:
        """Return backends (None: the default) by the Service's port names; ``like`` may omit some.

        Raises:
            ValueError: The Service lacks a named port.
        """
        names = [target.name for target in self.selection.targets]
        if not isinstance(like, Mapping):
            return dict.fromkeys(names, like)
        if unknown := sorted(like.keys() - set(names)):
            have = ", ".join(repr(name) for name in names)
            raise ValueError(f"{self.service.key} has no port {unknown[0]!r}; it has {have}")
        return dict(like)

    def ports_of(self, pod: PodEndpoint, names: Mapping[str, object]) -> dict[str, PodPort]:
        """Return a Pod's ports by the Service's port names; omit names that aren't in ``names``.

        Raises:
            ValueError: No container has a port with the name of a target port.
        """
        ports: dict[str, PodPort] = {}
        for target in self.selection.targets:
            if target.name not in names:
                continue
            number = target.port
            if isinstance(number, str):
                number = pod.ports.get((number, target.protocol), 0)
            if not number:
                raise ValueError(
                    f"Pod {pod.key.name} has no {target.protocol} port of the name {target.port}, "
                    f"the target port of {self.service.key}"
                )
            ports[target.name] = PodPort(number, target.protocol)
        return ports


@dataclass(frozen=True, slots=True)
class PodFollower:
    """A Service's endpoint that follows a Pod."""

    service: ServiceKey
    port: PodPort
    publishes_not_ready: bool

    def state_in(self, views: Sequence[PortFacts], address: SocketAddress) -> str:
        """Return ``ready``, ``not ready`` or ``terminating``; empty if it isn't an endpoint."""
        for view in views:
            if view.plan.key.name.service == self.service:
                for verdict in view.plan.verdicts:
                    if verdict.address == address:
                        # A traffic policy may exclude a ready endpoint, so "ready" is the default.
                        words = verdict.reason.partition(",")[0]
                        return words if words in ("not ready", "terminating") else "ready"
        return ""


class RunningPod:
    """A Pod that runs in this test. It has slots, so that ``pod.is_redy = False`` is an error.

    Args:
        written: The Pod as it was before it ran here.
        update: Writes the Pod's state to the cluster; returns once the state is applied.
        is_ours: Whether this test created it.
    """

    __slots__ = (
        "_is_ready",
        "_update",
        "backends",
        "followers",
        "is_ours",
        "is_terminating",
        "key",
        "uid",
        "written",
    )

    def __init__(
        self,
        key: PodKey,
        written: Object,
        update: Callable[[RunningPod], None],
        *,
        is_ours: bool = False,
    ) -> None:
        self.key = key
        self.uid = written["metadata"]["uid"]
        """The UID, which distinguishes the Pod from later Pods of the same name."""
        self.written = written
        self.is_ours = is_ours
        self.backends: dict[PodPort, Backend] = {}
        """The backends by container port."""
        self.followers: set[PodFollower] = set()
        self.is_terminating = False
        self._is_ready = True
        self._update = update

    def __repr__(self) -> str:
        state = "terminating" if self.is_terminating else "ready" if self.is_ready else "not ready"
        ports = ", ".join(
            f"{port.number}/{port.protocol} at {backend.address}"
            for port, backend in self.backends.items()
        )
        return f"<Pod {self.key.namespace}/{self.name}, {state}, {ports}>"

    @property
    def name(self) -> str:
        """The Pod's name."""
        return self.key.name

    @property
    def is_ready(self) -> bool:
        """Whether the Pod's condition ``Ready`` is true; an assignment is applied on return."""
        return self._is_ready

    @is_ready.setter
    def is_ready(self, is_ready: bool) -> None:
        self._is_ready = is_ready
        self._update(self)

    def stop(self) -> None:
        """Refuse new connections and reset open ones; the Pod stays ready. Idempotent."""
        for backend in self.backends.values():
            backend.stop()

    def start(self) -> None:
        """Serve again. Idempotent."""
        for backend in self.backends.values():
            backend.start()

    def fault(
        self, type_: str, *, stream: str = "downstream", toxicity: float = 1.0, **attributes: int
    ) -> None:
        """Inject a fault into connections to the Pod: see :meth:`.EmbeddedProxy.add_fault`."""
        for backend in self.backends.values():
            backend.fault(type_, stream=stream, toxicity=toxicity, **attributes)

    def heal(self) -> None:
        """Remove the Pod's faults. Idempotent."""
        for backend in self.backends.values():
            backend.heal()

    def expected_state(self, follower: PodFollower) -> str:
        """Return the state that an endpoint has once this Pod's state is applied."""
        if follower.publishes_not_ready:
            return "ready"
        return "terminating" if self.is_terminating else "ready" if self.is_ready else "not ready"
