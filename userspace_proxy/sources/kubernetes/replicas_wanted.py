"""Decides whether a HorizontalPodAutoscaler or PodDisruptionBudget requires a replica.

Rule 1: pods aren't read, so only the labels that the workload's selector requires are known. If the
selector of a budget may match such pods, it counts as matching.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from ...model import Workload
from ...model.annotations import TEXT_MAX
from ...model.wire import (
    WireAutoscaler,
    WireAutoscalerSpec,
    WireBudget,
    WireBudgetSpec,
    WireSelector,
)

_KINDS = {"deployment": "Deployment", "statefulset": "StatefulSet"}
_PERCENT = re.compile(r"\d{1,9}%", re.ASCII)


def autoscaler_of(workload: Workload, autoscalers: Iterable[WireAutoscaler]) -> str:
    """Describe the HorizontalPodAutoscaler that prevents scaling to zero; empty if none does.

    Source: autoscaling/v2: ``minReplicas`` is 1 unless set.
    """
    for item in autoscalers:
        spec = item.spec or WireAutoscalerSpec()
        target = spec.scale_target_ref
        least = 1 if spec.min_replicas is None else spec.min_replicas
        is_its = (target.kind, target.name) == (_KINDS[workload.kind], workload.name)
        if is_its and least > 0:
            name = item.metadata.name or ""
            return f"HorizontalPodAutoscaler {name} has minReplicas {least}"
    return ""


def budget_of(labels: Mapping[str, str], budgets: Iterable[WireBudget]) -> str:
    """Describe the PodDisruptionBudget that requires the last replica; empty if none does.

    Args:
        labels: Labels that all pods of the workload have.

    Source: policy/v1. Percentages are rounded up: any percentage of one pod above 0 is one pod.
    """
    for item in budgets:
        spec = item.spec or WireBudgetSpec()
        field = _blocking_field(spec)
        if field and _may_match(spec.selector, labels):
            return f"PodDisruptionBudget {item.metadata.name or ''} has {field}"
    return ""


def labels_of(selector: str) -> Mapping[str, str]:
    """Return labels that all pods of a workload have; empty if its selector is too long.

    Args:
        selector: The selector in the status of the workload's Scale.
    """
    if len(selector) > TEXT_MAX:
        return {}
    found: dict[str, str] = {}
    for requirement in _requirements(selector):
        words = requirement.split(None, 2)
        key, equals, value = requirement.partition("=")
        if len(words) == 3 and words[1] == "in":
            (one, *more) = words[2].strip().removeprefix("(").removesuffix(")").split(",")
            if not more:
                found[words[0]] = one.strip()
        elif equals and len(key.split()) == 1 and not key.endswith("!"):
            found[key.strip()] = value.removeprefix("=").strip()
    return found


def _requirements(selector: str) -> Iterator[str]:
    """Yield a selector's requirements; commas in parentheses separate values."""
    parts: list[str] = []
    is_open = False
    for part in selector.split(","):
        parts.append(part)
        opened, closed = part.rfind("("), part.rfind(")")
        if opened != closed:
            is_open = opened > closed
        if not is_open:
            yield ",".join(parts)
            parts.clear()


def _blocking_field(spec: WireBudgetSpec) -> str:
    """Return the setting of a budget that forbids evicting the only replica; empty if none does."""
    least, most = spec.min_available, spec.max_unavailable
    if least is not None:
        return f"minAvailable {least}" if _count(least) > 0 else ""
    if most is not None:
        return "" if _count(most) > 0 else f"maxUnavailable {most}"
    # Source: Kubernetes' disruption controller, which then allows no disruptions.
    return "neither minAvailable nor maxUnavailable"


def _count(value: int | str) -> int:
    """Return the number of pods for a number or a percentage of one pod; 1 for other text."""
    if isinstance(value, int):
        return value
    return 0 if _PERCENT.fullmatch(value) and not int(value[:-1]) else 1


def _may_match(selector: WireSelector | None, labels: Mapping[str, str]) -> bool:
    """Return whether a budget's selector may match pods that have at least these labels.

    Source: policy/v1: an empty selector matches all pods, and a missing selector no pods.
    """
    if selector is None:
        return False
    for key, value in (selector.match_labels or {}).items():
        if key in labels and labels[key] != value:
            return False
    for one in selector.match_expressions or ():
        known = labels.get(one.key)
        if known is None:
            continue
        is_among = known in (one.values or ())
        match one.operator:
            case "In" if not is_among:
                return False
            case "NotIn" if is_among:
                return False
            case "DoesNotExist":
                return False
            case _:
                pass
    return True
