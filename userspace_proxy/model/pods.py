"""Pods as JSON, and as far as they tell why a Service has no endpoint."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

from .wire import Metadata, decode


@dataclass(frozen=True, slots=True)
class PodState:
    """One pod."""

    name: str
    labels: tuple[tuple[str, str], ...]
    """Sorted."""
    is_ready: bool
    why_not: str
    """Why it isn't ready, in the cluster's words; empty if it is."""
    port_names: tuple[str, ...]
    """Of its containers, without unnamed ones."""
    port_numbers: tuple[int, ...] = ()
    """The ``containerPort`` of all its containers; programs may listen on others, too."""


class WireContainerPort(msgspec.Struct, frozen=True, rename="camel", gc=False):
    """An item of ``ports`` of a container."""

    name: str | None = None
    container_port: int | None = None
    protocol: str | None = None


class WireContainer(msgspec.Struct, frozen=True, rename="camel", gc=False):
    """An item of ``spec.containers`` or ``spec.initContainers`` of a Pod."""

    ports: list[WireContainerPort] | None = None
    restart_policy: str | None = None
    """``Always``: an init container that runs beside the others."""


class WirePodSpec(msgspec.Struct, frozen=True, rename="camel", gc=False):
    """``spec`` of a Pod."""

    containers: list[WireContainer] | None = None
    init_containers: list[WireContainer] | None = None
    node_name: str | None = None
    hostname: str | None = None
    subdomain: str | None = None


class _Reason(msgspec.Struct, frozen=True, rename="camel", gc=False):
    reason: str | None = None
    message: str | None = None
    exit_code: int | None = None


class _State(msgspec.Struct, frozen=True, rename="camel", gc=False):
    waiting: _Reason | None = None
    terminated: _Reason | None = None


class _ContainerStatus(msgspec.Struct, frozen=True, rename="camel", gc=False):
    name: str | None = None
    ready: bool | None = None
    state: _State | None = None
    last_state: _State | None = None


class WirePodIP(msgspec.Struct, frozen=True, rename="camel", gc=False):
    """An item of ``status.podIPs``."""

    ip: str | None = None


class WirePodCondition(msgspec.Struct, frozen=True, rename="camel", gc=False):
    """An item of ``status.conditions`` of a Pod."""

    type: str | None = None
    status: str | None = None
    reason: str | None = None
    message: str | None = None


class WirePodStatus(msgspec.Struct, frozen=True, rename="camel", gc=False):
    """``status`` of a Pod."""

    phase: str | None = None
    pod_ip: str | None = msgspec.field(default=None, name="podIP")
    pod_ips: list[WirePodIP] | None = msgspec.field(default=None, name="podIPs")
    conditions: list[WirePodCondition] | None = None
    container_statuses: list[_ContainerStatus] | None = None


class WirePod(msgspec.Struct, frozen=True, rename="camel", gc=False):
    """``v1 Pod``."""

    metadata: Metadata = Metadata()
    spec: WirePodSpec | None = None
    status: WirePodStatus | None = None

    def condition(self, type_: str) -> WirePodCondition:
        """Return a condition; an empty one if there is none of that type."""
        conditions = (self.status and self.status.conditions) or ()
        return next((c for c in conditions if c.type == type_), WirePodCondition())


def read_pods(items: Iterable[bytes]) -> tuple[PodState, ...]:
    """Return the pods in the items of a list of the API, by name.

    Raises:
        FieldError: One isn't a pod.
    """
    pods = [_read(decode(item, WirePod)) for item in items]
    return tuple(sorted(pods, key=lambda pod: pod.name))


def _read(wire: WirePod) -> PodState:
    labels = {key: value or "" for key, value in (wire.metadata.labels or {}).items()}
    is_ready = wire.condition("Ready").status == "True" and not wire.metadata.deletion_timestamp
    containers = (wire.spec or WirePodSpec()).containers or []
    ports = [port for container in containers for port in container.ports or ()]
    return PodState(
        name=wire.metadata.name or "",
        labels=tuple(sorted(labels.items())),
        is_ready=is_ready,
        why_not="" if is_ready else _why_not(wire),
        port_names=tuple(port.name for port in ports if port.name),
        port_numbers=tuple(port.container_port for port in ports if port.container_port),
    )


def _why_not(wire: WirePod) -> str:
    status = wire.status or WirePodStatus()
    if wire.metadata.deletion_timestamp:
        return "it is being deleted"
    if status.phase in ("Succeeded", "Failed"):
        return f"its phase is {status.phase}"
    scheduled = wire.condition("PodScheduled")
    if scheduled.status == "False":
        return _joined("it is not scheduled", scheduled.message)
    for container in status.container_statuses or ():
        if not container.ready:
            return f"container {container.name} {_container(container)}"
    phase = status.phase or "unknown"
    return _joined(f"its phase is {phase}", wire.condition("Ready").message)


def _container(status: _ContainerStatus) -> str:
    state, last = status.state or _State(), status.last_state or _State()
    if state.waiting is not None:
        text = _joined(f"waits: {state.waiting.reason}", state.waiting.message)
        ended = last.terminated
        return f"{text}; it ended with status {ended.exit_code}" if ended else text
    if state.terminated is not None:
        return f"ended with status {state.terminated.exit_code}"
    return "runs, and its readiness probe hasn't succeeded"


def _joined(text: str, message: str | None) -> str:
    return f"{text}: {' '.join(message.split())}" if message else text
