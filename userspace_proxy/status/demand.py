"""Demand for pods, in the form that autoscalers read.

Source: KEDA's scaler ``metrics-api`` reads a number from JSON by a path, here ``demand.shop.web``.
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
    """Return it as JSON: by namespace, then by name."""
    by_namespace: dict[str, dict[str, int]] = {}
    for key, demand in demand_of(view).items():
        by_namespace.setdefault(key.namespace, {})[key.name] = demand
    return json.dumps({"demand": by_namespace}).encode()


def demand_family(view: StatusFacts) -> Family:
    """Return it as a metric."""
    rows = [
        (labels_text(("namespace", "service"), key), demand)
        for key, demand in demand_of(view).items()
    ]
    return gauge(
        f"{PREFIX}demand",
        "Clients that wait for an endpoint of a Service with the annotation hold; at least 1 until "
        "90 s after the last one has waited",
        rows,
    )
