"""Demand for pods, in the form that autoscalers read.

Source: KEDA's scaler ``metrics-api`` reads a number from JSON by a path, here ``cluster.shop.web``.
A path that isn't there is an error, after which it changes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from ..facts import StatusFacts
from ..model import ServiceKey
from .exposition import Family, gauge, labels_text
from .node_families import PREFIX


def demand_of(view: StatusFacts) -> Mapping[ServiceKey, int]:
    """Return the demand of every Service that holds connections; 0 for those without."""
    holding = {port.plan.key.name.service for port in view.ports if port.hold_s is not None}
    return {key: view.demand.get(key, 0) for key in sorted(holding)}


def render_demand(view: StatusFacts) -> bytes:
    """Return it as JSON, by namespace, then by name: this node's, and all nodes' where known."""
    answer = {"demand": _by_namespace(demand_of(view))}
    if (of_all := view.cluster_demand) is not None:
        answer["cluster"] = _by_namespace(of_all)
    return json.dumps(answer).encode()


def _by_namespace(demand: Mapping[ServiceKey, int]) -> dict[str, dict[str, int]]:
    by_namespace: dict[str, dict[str, int]] = {}
    for key, count in demand.items():
        by_namespace.setdefault(key.namespace, {})[key.name] = count
    return by_namespace


def demand_family(view: StatusFacts) -> Family:
    """Return it as a metric."""
    rows = [
        (labels_text(("namespace", "service"), key), demand)
        for key, demand in demand_of(view).items()
    ]
    return gauge(
        f"{PREFIX}demand",
        "How much a Service with the annotation hold needs pods: clients that wait, open "
        "connections (UDP: live flows); at least 1 until idle-after, or 90 s, after the last",
        rows,
    )
