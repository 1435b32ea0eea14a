"""Decides on which nodes a DaemonSet should run a pod, so that nodes without one are reported.

Rule 1: the decision matches the DaemonSet controller's: node selector, required node affinity, and
taints that aren't tolerated.
Rule 2: nodes without their own kernel, such as virtual-kubelet's, run no proxy.

Source: pkg/controller/daemon, nodeShouldRunDaemonPod and AddOrUpdateDaemonPodTolerations.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from userspace_proxy.model.wire import (
    WireAffinityTerm,
    WireDaemonSet,
    WireDaemonSetStatus,
    WireExpression,
    WirePodSpec,
    WireReportedNode,
    WireTaint,
    WireToleration,
    decode,
)

_TOLERATED = frozenset(
    f"node.kubernetes.io/{name}"
    for name in (
        *("not-ready", "unreachable", "disk-pressure", "memory-pressure", "pid-pressure"),
        *("unschedulable", "network-unavailable"),
    )
)
_VIRTUAL_LABELS = frozenset(
    {
        ("type", "virtual-kubelet"),
        ("type", "kwok"),
        ("eks.amazonaws.com/compute-type", "fargate"),
    }
)
_VIRTUAL_TAINT = "virtual-kubelet.io/provider"
_REASON_MAX = 200


@dataclass(frozen=True, slots=True)
class Placement:
    """The nodes that a DaemonSet targets."""

    selector: Mapping[str, str | None] = field(default_factory=dict)
    tolerations: tuple[WireToleration, ...] = ()
    terms: tuple[WireAffinityTerm, ...] = ()
    """The terms of the required node affinity; may be empty."""
    wanted: int | None = None
    """The number of nodes counted by the DaemonSet controller; None if unknown."""

    def includes(self, node: NodeState) -> bool:
        """Return whether a node should have a pod."""
        if node.is_virtual or any(node.labels.get(k) != v for k, v in self.selector.items()):
            return False
        if self.terms and not any(_fits(term, node.labels) for term in self.terms):
            return False
        taints = [t for t in node.taints if t.effect in ("NoSchedule", "NoExecute")]
        return all(
            taint.key in _TOLERATED or any(_tolerates(one, taint) for one in self.tolerations)
            for taint in taints
        )


def _tolerates(one: WireToleration, taint: WireTaint) -> bool:
    if (one.effect and one.effect != taint.effect) or (one.key and one.key != taint.key):
        return False
    # A missing value equals an empty value.
    is_equal = bool(one.key) and (one.value or "") == (taint.value or "")
    return one.operator == "Exists" or is_equal


def _fits(term: WireAffinityTerm, labels: Mapping[str, str | None]) -> bool:
    return all(_holds(one, labels) for one in term.match_expressions or ())


def _holds(expression: WireExpression, labels: Mapping[str, str | None]) -> bool:
    """Return whether labels match a condition; a condition of an unknown kind matches."""
    value, values = labels.get(expression.key), expression.values or []
    match expression.operator:
        case "In":
            return value in values
        case "NotIn":
            return value not in values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
    return True


@dataclass(frozen=True, slots=True)
class NodeState:
    """A Node's fields that decide whether it should have an agent that can answer."""

    name: str
    labels: Mapping[str, str | None] = field(default_factory=dict)
    taints: tuple[WireTaint, ...] = ()
    reason: str = ""
    """The reason why the node isn't ready, in the cluster's words; empty if it is ready."""

    @property
    def is_virtual(self) -> bool:
        """Whether the node has no kernel of its own."""
        has_label = not _VIRTUAL_LABELS.isdisjoint(self.labels.items())
        return has_label or any(taint.key == _VIRTUAL_TAINT for taint in self.taints)


def read_node_state(item: bytes) -> NodeState:
    """Parse a Node from JSON.

    Raises:
        FieldError: The JSON isn't a Node.
    """
    node = decode(item, WireReportedNode)
    conditions = (node.status and node.status.conditions) or ()
    ready = next((one for one in conditions if one.type == "Ready"), None)
    reason = ""
    if ready is not None and ready.status != "True":
        reason = " ".join((ready.message or ready.reason or "its kubelet reports so").split())
    return NodeState(
        name=node.metadata.name or "",
        labels=node.metadata.labels or {},
        taints=tuple((node.spec and node.spec.taints) or ()),
        reason=reason[:_REASON_MAX].rstrip("."),
    )


def read_daemon_set(item: bytes) -> Placement:
    """Parse a DaemonSet from JSON; return the nodes that it targets.

    Raises:
        FieldError: The JSON isn't a DaemonSet.
    """
    found = decode(item, WireDaemonSet)
    template = found.spec and found.spec.template
    spec = (template and template.spec) or WirePodSpec()
    status = found.status or WireDaemonSetStatus()
    affinity = spec.affinity and spec.affinity.node_affinity
    required = affinity and affinity.required_during_scheduling_ignored_during_execution
    return Placement(
        spec.node_selector or {},
        tuple(spec.tolerations or ()),
        tuple((required and required.node_selector_terms) or ()),
        # The controller's count is valid only once it has observed the object.
        status.desired_number_scheduled if status.observed_generation else None,
    )


def lacking(
    nodes: Iterable[NodeState], placements: Sequence[Placement], have: Iterable[str]
) -> tuple[str, ...]:
    """Return nodes that should have a pod but lack one, by name; none if enough nodes have pods.

    Args:
        placements: One for each DaemonSet.
        have: The nodes with a pod, running or not.
    """
    having = frozenset(have)
    counts = [one.wanted for one in placements if one.wanted is not None]
    if counts and len(counts) == len(placements) and sum(counts) <= len(having):
        return ()
    return tuple(
        sorted(
            node.name
            for node in nodes
            if node.name not in having and any(one.includes(node) for one in placements)
        )
    )
