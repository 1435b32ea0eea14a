"""Reads the parts of Pods that explain why a Service has no endpoint."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from .reading import read_time, valid_addresses
from .wire import (
    WireContainerState,
    WireContainerStatus,
    WirePod,
    WirePodSpec,
    WirePodStatus,
    WireReason,
    decode,
)


@dataclass(frozen=True, slots=True)
class PodState:
    """The fields of a pod that explain why a Service has no endpoint."""

    name: str
    labels: tuple[tuple[str, str], ...]
    """The pod's labels, sorted."""
    is_ready: bool
    reason: str
    """Why the pod isn't ready, as the cluster reports it; empty if it is ready."""
    port_names: tuple[str, ...]
    """The names of the containers' ports."""
    port_numbers: tuple[int, ...] = ()
    """Every ``containerPort``; programs may also listen on other ports."""
    ips: tuple[str, ...] = ()
    """The pod's addresses; empty before it has one."""


def read_pods(items: Iterable[bytes]) -> tuple[PodState, ...]:
    """Return the pods in the items of an API list, sorted by name.

    Raises:
        FieldError: An item isn't a pod.
    """
    pods = [state_of(decode(item, WirePod)) for item in items]
    return tuple(sorted(pods, key=lambda pod: pod.name))


def state_of(wire: WirePod) -> PodState:
    """Convert a pod."""
    labels = {key: value or "" for key, value in (wire.metadata.labels or {}).items()}
    is_ready = wire.condition("Ready").status == "True" and not wire.metadata.deletion_timestamp
    status = wire.status or WirePodStatus()
    containers = (wire.spec or WirePodSpec()).containers or []
    ports = [port for container in containers for port in container.ports or ()]
    return PodState(
        name=wire.metadata.name or "",
        labels=tuple(sorted(labels.items())),
        is_ready=is_ready,
        reason="" if is_ready else _unready_reason(wire),
        port_names=tuple(port.name for port in ports if port.name),
        port_numbers=tuple(port.container_port for port in ports if port.container_port),
        ips=valid_addresses([status.pod_ip, *(one.ip for one in status.pod_ips or ())]),
    )


def _unready_reason(wire: WirePod) -> str:
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
    phase, message = status.phase or "unknown", wire.condition("Ready").message
    if phase == "Running" and status.container_statuses and not message:
        return "its containers run, but it is marked unready, as pods of a Node that isn't ready"
    return _joined(f"its phase is {phase}", message)


def _container(status: WireContainerStatus) -> str:
    state, last = status.state or WireContainerState(), status.last_state or WireContainerState()
    if state.waiting is not None:
        reason, message = state.waiting.reason, state.waiting.message
        # This message states only the delay, and a name of the pod that differs on each node.
        text = _joined(f"waits: {reason}", None if reason == "CrashLoopBackOff" else message)
        return f"{text}; it {_ended(last.terminated)}" if last.terminated else text
    if state.terminated is not None:
        return _ended(state.terminated)
    return "runs, and its readiness probe hasn't succeeded"


class ContainerEnd(NamedTuple):
    """How a container last ended."""

    text: str = ""
    """A predicate such as "ended with status 137 (OOMKilled)"; empty if it hasn't ended yet."""
    is_out_of_memory: bool = False
    at: float = 0.0
    """Unix time; 0 if unknown."""
    is_graceful: bool = False
    """Whether it ended with status 0."""


NOT_ENDED = ContainerEnd()


def last_end_of(container: WireContainerStatus) -> ContainerEnd:
    """Return how a container last ended; ``NOT_ENDED`` if it hasn't ended yet."""
    for state in (container.state, container.last_state):
        if state and (end := state.terminated):
            at = read_time(end.finished_at or "")
            return ContainerEnd(_ended(end), end.reason == "OOMKilled", at, end.exit_code == 0)
    return NOT_ENDED


def _ended(end: WireReason) -> str:
    # "Error" and "Completed" state no more than the status.
    reason = f" ({end.reason})" if end.reason not in (None, "Error", "Completed") else ""
    return f"ended with status {end.exit_code}{reason}"


def _joined(text: str, message: str | None) -> str:
    return f"{text}: {' '.join(message.split())}" if message else text
