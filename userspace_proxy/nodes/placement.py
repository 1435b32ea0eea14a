"""On which nodes a DaemonSet runs its pods, so that a node without one is noticed, and no other.

Rule 1: as the DaemonSet controller decides it: node selector, required node affinity, and taints
that aren't tolerated.
Rule 2: nodes without a kernel of their own, such as those of virtual-kubelet, run no proxy.

Source: pkg/controller/daemon, nodeShouldRunDaemonPod and AddOrUpdateDaemonPodTolerations.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from ..model.wire import decode

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
_WHY_MAX = 200


class Toleration(msgspec.Struct, frozen=True):
    """An item of ``tolerations`` of a pod."""

    key: str | None = None
    operator: str | None = None
    value: str | None = None
    effect: str | None = None

    def tolerates(self, taint: Taint) -> bool:
        """Return whether a pod with it may run in spite of a taint."""
        if self.effect and self.effect != taint.effect:
            return False
        if self.key and self.key != taint.key:
            return False
        return self.operator == "Exists" or (bool(self.key) and self.value_of == taint.value_of)

    @property
    def value_of(self) -> str:
        return self.value or ""


class Taint(msgspec.Struct, frozen=True):
    """An item of ``taints`` of a Node."""

    key: str | None = None
    value: str | None = None
    effect: str | None = None

    @property
    def value_of(self) -> str:
        return self.value or ""


class LabelExpression(msgspec.Struct, frozen=True):
    """A condition of a node affinity."""

    key: str = ""
    operator: str = ""
    values: list[str] | None = None

    def holds(self, labels: Mapping[str, str]) -> bool:
        """Return whether it holds for labels; one that is unknown here does."""
        value, values = labels.get(self.key), self.values or []
        match self.operator:
            case "In":
                return value in values
            case "NotIn":
                return value not in values
            case "Exists":
                return value is not None
            case "DoesNotExist":
                return value is None
        return True


class AffinityTerm(msgspec.Struct, frozen=True, rename="camel"):
    """One of the alternatives of a required node affinity; fields of Nodes aren't compared."""

    match_expressions: list[LabelExpression] | None = None


@dataclass(frozen=True, slots=True)
class Placement:
    """Which nodes a DaemonSet means."""

    selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: tuple[Toleration, ...] = ()
    terms: tuple[AffinityTerm, ...] = ()
    """Of the required node affinity; empty: there is none."""
    wanted: int | None = None
    """How many nodes these are, as its controller has counted; None: that isn't known."""

    def includes(self, node: NodeState) -> bool:
        if node.is_virtual or any(node.labels.get(k) != v for k, v in self.selector.items()):
            return False
        if self.terms and not any(_fits(term, node.labels) for term in self.terms):
            return False
        taints = [t for t in node.taints if t.effect in ("NoSchedule", "NoExecute")]
        return all(
            taint.key in _TOLERATED or any(one.tolerates(taint) for one in self.tolerations)
            for taint in taints
        )


def _fits(term: AffinityTerm, labels: Mapping[str, str]) -> bool:
    return all(one.holds(labels) for one in term.match_expressions or ())


@dataclass(frozen=True, slots=True)
class NodeState:
    """A Node, as far as it tells whether it should have an agent, and whether that can answer."""

    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: tuple[Taint, ...] = ()
    why_not: str = ""
    """Why it isn't ready, in the cluster's words; empty if it is."""

    @property
    def is_virtual(self) -> bool:
        """Whether it has no kernel of its own."""
        has_label = not _VIRTUAL_LABELS.isdisjoint(self.labels.items())
        return has_label or any(taint.key == _VIRTUAL_TAINT for taint in self.taints)


class _NodeCondition(msgspec.Struct, frozen=True):
    type: str | None = None
    status: str | None = None
    reason: str | None = None
    message: str | None = None


class _TaintedSpec(msgspec.Struct, frozen=True):
    taints: list[Taint] | None = None


class _ConditionStatus(msgspec.Struct, frozen=True):
    conditions: list[_NodeCondition] | None = None


class _LabelledMetadata(msgspec.Struct, frozen=True, rename="camel"):
    name: str | None = None
    labels: dict[str, str] | None = None


class _TaintedNode(msgspec.Struct, frozen=True):
    metadata: _LabelledMetadata = _LabelledMetadata()
    spec: _TaintedSpec | None = None
    status: _ConditionStatus | None = None


def read_node_state(item: bytes) -> NodeState:
    """Return a Node of JSON.

    Raises:
        FieldError: It isn't one.
    """
    node = decode(item, _TaintedNode)
    conditions = (node.status and node.status.conditions) or ()
    ready = next((one for one in conditions if one.type == "Ready"), None)
    why_not = ""
    if ready is not None and ready.status != "True":
        why_not = " ".join((ready.message or ready.reason or "its kubelet reports so").split())
    return NodeState(
        name=node.metadata.name or "",
        labels=node.metadata.labels or {},
        taints=tuple((node.spec and node.spec.taints) or ()),
        why_not=why_not[:_WHY_MAX].rstrip("."),
    )


class _RequiredAffinity(msgspec.Struct, frozen=True, rename="camel"):
    node_selector_terms: list[AffinityTerm] | None = None


class _NodeAffinity(msgspec.Struct, frozen=True, rename="camel"):
    required_during_scheduling_ignored_during_execution: _RequiredAffinity | None = None


class _PlacedAffinity(msgspec.Struct, frozen=True, rename="camel"):
    node_affinity: _NodeAffinity | None = None


class _PlacedSpec(msgspec.Struct, frozen=True, rename="camel"):
    node_selector: dict[str, str] | None = None
    tolerations: list[Toleration] | None = None
    affinity: _PlacedAffinity | None = None


class _PlacedTemplate(msgspec.Struct, frozen=True):
    spec: _PlacedSpec = _PlacedSpec()


class _DaemonSetSpec(msgspec.Struct, frozen=True):
    template: _PlacedTemplate = _PlacedTemplate()


class _DaemonSetStatus(msgspec.Struct, frozen=True, rename="camel"):
    desired_number_scheduled: int = 0
    observed_generation: int = 0


class _DaemonSet(msgspec.Struct, frozen=True):
    spec: _DaemonSetSpec = _DaemonSetSpec()
    status: _DaemonSetStatus | None = None


def read_daemon_set(item: bytes) -> Placement:
    """Return which nodes a DaemonSet of JSON means.

    Raises:
        FieldError: It isn't one.
    """
    found = decode(item, _DaemonSet)
    spec, status = found.spec.template.spec, found.status or _DaemonSetStatus()
    affinity = spec.affinity and spec.affinity.node_affinity
    required = affinity and affinity.required_during_scheduling_ignored_during_execution
    return Placement(
        spec.node_selector or {},
        tuple(spec.tolerations or ()),
        tuple((required and required.node_selector_terms) or ()),
        # Its controller hasn't counted before it has observed the object.
        status.desired_number_scheduled if status.observed_generation else None,
    )


def lacking(
    nodes: Iterable[NodeState], placements: Sequence[Placement], have: Iterable[str]
) -> tuple[str, ...]:
    """Return the nodes that should have a pod and have none, by name.

    Args:
        placements: One for each DaemonSet.
        have: The nodes that have a pod, whether or not it runs.
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
