"""Which pods are agents, at which port each shows its page, and which one of a node is asked.

Rule 1: an agent is in its node's network namespace; a pod with the labels that isn't is none.
Rule 2: of several on a node the first is one that runs and isn't ending, that serves the Services
of the wanted name (a canary's; else those without), that is ready, and that is the newest.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from userspace_proxy.model.pods import state_of
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
"""Where the page is unless a flag says otherwise, as kube-proxy's metrics."""

_PORT_FLAG = "--metrics-bind-address"
_NAME_FLAG = "--service-proxy-name"
_TAKE_OVER = "--take-over"
_PORT_TEXT = re.compile(r":([0-9]{1,5})\Z")
_WHY_MAX = 300


@dataclass(frozen=True, slots=True)
class AgentPod:
    """A pod that is an agent."""

    target: ForwardTarget
    node: str
    """Empty: it isn't scheduled yet."""
    created: str = ""
    """As the API server writes it, which sorts by time."""
    is_running: bool = False
    """Its container runs."""
    is_ready: bool = False
    is_ending: bool = False
    """It is being deleted."""
    serves_name: str = ""
    """The name of the Services that it serves, of a canary; empty: those without one."""
    takes_over: bool = False
    """It has the flag with which the chart starts agents."""
    why_not: str = ""
    """Why it doesn't run, in the cluster's words; empty if it does."""
    placement: Placement = field(default_factory=Placement)
    """Which nodes its DaemonSet means, as far as the pod tells."""


def read_agent(item: bytes) -> AgentPod | None:
    """Return the agent in a pod as JSON; None: it is none.

    Raises:
        FieldError: It isn't a pod.
    """
    pod = decode(item, WirePod)
    spec, status, metadata = pod.spec or WirePodSpec(), pod.status or WirePodStatus(), pod.metadata
    if not spec.host_network or not spec.containers or not metadata.name:
        return None
    container = spec.containers[0]
    words = [*(container.command or ()), *(container.args or ())]
    is_running = status.phase == "Running" and _runs(container.name, status.container_statuses)
    return AgentPod(
        target=ForwardTarget(metadata.namespace or "", metadata.name, _port_of(words)),
        node=spec.node_name or "",
        created=metadata.creation_timestamp or "",
        is_running=is_running,
        is_ready=is_running and pod.condition("Ready").status == "True",
        is_ending=metadata.deletion_timestamp is not None,
        serves_name=_last_value(words, _NAME_FLAG),
        takes_over=_TAKE_OVER in words,
        why_not="" if is_running else (state_of(pod).why_not or "it does not run")[:_WHY_MAX],
        placement=Placement(spec.node_selector or {}, tuple(spec.tolerations or ())),
    )


def _runs(name: str | None, statuses: Sequence[WireContainerStatus] | None) -> bool:
    """Return whether a container runs; one that restarts again and again is in a running pod."""
    own = next((one for one in statuses or () if one.name == name), None)
    return own is None or own.state is None or own.state.running is not None


def _last_value(words: Sequence[str], flag: str) -> str:
    """Return the value of a flag, of which the last one counts; empty if it isn't given."""
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
    """Return the agents of each node, the one to ask first; those without a node are left out."""

    def rank(agent: AgentPod) -> tuple[bool, ...]:
        return not agent.is_running, agent.is_ending, agent.serves_name != name, not agent.is_ready

    found: dict[str, list[AgentPod]] = {}
    # What is sorted twice is sorted by both: the newest first.
    for agent in sorted(agents, key=lambda one: one.created, reverse=True):
        if agent.node:
            found.setdefault(agent.node, []).append(agent)
    return {node: tuple(sorted(found[node], key=rank)) for node in sorted(found)}


def serving(pods: Sequence[AgentPod]) -> tuple[ForwardTarget, ...]:
    """Return those of a node's agents of which one should be: that which is asked, and its rivals.

    One that is ending lets connections finish, and a canary has Services of its own.

    Args:
        pods: As of :func:`by_node`.
    """
    running = [one for one in pods if one.is_running]
    names = {one.serves_name for one in running[:1]}
    rivals = (one for one in running[1:] if not one.is_ending and one.serves_name in names)
    return tuple(one.target for one in (*running[:1], *rivals))
