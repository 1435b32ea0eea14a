"""Finds the agents among pods, and decides which agent of a node is asked, and on which port.

Rule 1: an agent uses its node's network namespace; other pods with the same labels aren't agents.
Rule 2: a node's agents are sorted by these criteria in turn: it runs, isn't terminating, has the
wanted ``--service-proxy-name`` (a canary's, otherwise none), is ready, is newer.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from userspace_proxy.model.pods import NOT_ENDED, ContainerEnd, last_end_of, state_of
from userspace_proxy.model.wire import (
    WireContainerStatus,
    WirePod,
    WirePodSpec,
    WirePodStatus,
    decode,
)

from ..port_forward import ForwardTarget
from .placement import Placement

PORT = 10249
"""The page's default port, which is also kube-proxy's metrics port."""

_PORT_FLAG = "--metrics-bind-address"
_NAME_FLAG = "--service-proxy-name"
_TAKE_OVER = "--take-over"
_PORT_TEXT = re.compile(r":([0-9]{1,5})\Z")
_REASON_MAX = 300


@dataclass(frozen=True, slots=True)
class AgentPod:
    """An agent's pod."""

    target: ForwardTarget
    node: str
    """The node's name; empty before the pod is scheduled."""
    created: str = ""
    """The API server's timestamp, whose text sorts by time."""
    is_running: bool = False
    is_ready: bool = False
    is_ending: bool = False
    serves_name: str = ""
    """A canary's ``--service-proxy-name``; empty if it serves Services without that label."""
    takes_over: bool = False
    """Whether the pod has the flag ``--take-over``, as all of the chart's agents do."""
    reason: str = ""
    """Why the pod isn't running, in the cluster's words; empty if it is running."""
    last_end: ContainerEnd = NOT_ENDED
    restarts: int = 0
    """The number of restarts of its container."""
    placement: Placement = field(default_factory=Placement)
    """The nodes that the pod's DaemonSet targets, if the pod shows that."""


def read_agent(item: bytes) -> AgentPod | None:
    """Parse a pod's JSON; return None if the pod isn't an agent.

    Raises:
        FieldError: The JSON isn't a pod.
    """
    pod = decode(item, WirePod)
    spec, status, metadata = pod.spec or WirePodSpec(), pod.status or WirePodStatus(), pod.metadata
    if not spec.host_network or not spec.containers or not metadata.name:
        return None
    container = spec.containers[0]
    words = [*(container.command or ()), *(container.args or ())]
    statuses = status.container_statuses or ()
    own = next((one for one in statuses if one.name == container.name), None)
    is_running = status.phase == "Running" and _runs(own)
    return AgentPod(
        target=ForwardTarget(metadata.namespace or "", metadata.name, _port_of(words)),
        node=spec.node_name or "",
        created=metadata.creation_timestamp or "",
        is_running=is_running,
        is_ready=is_running and pod.condition("Ready").status == "True",
        is_ending=metadata.deletion_timestamp is not None,
        serves_name=_last_value(words, _NAME_FLAG),
        takes_over=_TAKE_OVER in words,
        reason="" if is_running else (state_of(pod).reason or "it does not run")[:_REASON_MAX],
        last_end=last_end_of(own) if own else NOT_ENDED,
        restarts=(own.restart_count or 0) if own else 0,
        placement=Placement(spec.node_selector or {}, tuple(spec.tolerations or ())),
    )


def _runs(own: WireContainerStatus | None) -> bool:
    """Return whether a container of a pod in phase Running is running; True if unknown."""
    return own is None or own.state is None or own.state.running is not None


def _last_value(words: Sequence[str], flag: str) -> str:
    """Return the last value of a flag, which is the effective one; empty if the flag is absent."""
    value = ""
    for word, after in zip(words, [*words[1:], ""], strict=True):
        name, equals, given = word.partition("=")
        if name == flag:
            value = given if equals else after
    return value


def _port_of(words: Sequence[str]) -> int:
    found = _PORT_TEXT.search(_last_value(words, _PORT_FLAG))
    port = int(found[1]) if found else PORT
    return port if 0 < port < 1 << 16 else PORT


def by_node(agents: Iterable[AgentPod], name: str = "") -> Mapping[str, tuple[AgentPod, ...]]:
    """Return each node's agents, the agent to ask first; agents without a node are omitted."""

    def rank(agent: AgentPod) -> tuple[bool, ...]:
        return not agent.is_running, agent.is_ending, agent.serves_name != name, not agent.is_ready

    found: dict[str, list[AgentPod]] = {}
    # Sorting is stable, so among equally ranked agents the newest is first.
    for agent in sorted(agents, key=lambda one: one.created, reverse=True):
        if agent.node:
            found.setdefault(agent.node, []).append(agent)
    return {node: tuple(sorted(found[node], key=rank)) for node in sorted(found)}


def serving(pods: Sequence[AgentPod]) -> tuple[ForwardTarget, ...]:
    """Return the running agents that serve the same Services on a node, the agent to ask first.

    A terminating agent only waits for connections to end, and a canary serves other Services.

    Args:
        pods: The result of :func:`by_node`.
    """
    running = [one for one in pods if one.is_running]
    names = {one.serves_name for one in running[:1]}
    rivals = (one for one in running[1:] if not one.is_ending and one.serves_name in names)
    return tuple(one.target for one in (*running[:1], *rivals))
