"""Adds other Nodes to the cluster, whose objects are created, changed and deleted."""

from __future__ import annotations

from dataclasses import replace
from random import Random

from ..plan import Event
from .claims import key_of
from .plan import DELETE, OTHER_NODE_IP, OTHERS, PUT, Object, Plan

NODES = 0.1
"""The share of plans with other Nodes."""


def with_nodes(rng: Random, plan: Plan) -> Plan:
    """Return a plan with other Nodes."""
    there = [_node(rng, name) for name in OTHERS if rng.random() < 0.7]
    events = list(plan.events)
    for _ in range(rng.randint(1, 4)):
        at, node = round(plan.calm_at * rng.random(), 4), _node(rng, rng.choice(OTHERS))
        is_gone = rng.random() < 0.4
        events.append(Event(at, DELETE, (key_of(node),)) if is_gone else Event(at, PUT, (node,)))
    return replace(
        plan,
        features=plan.features | {"other Nodes"},
        # One of the other Nodes is listed before this node's objects, the rest after them.
        objects=(*there[:1], *plan.objects, *there[1:]),
        events=tuple(sorted(events, key=lambda event: event.at)),
    )


def _node(rng: Random, name: str) -> Object:
    """Return another Node, which the agent must not mistake for its own."""
    zone, network = rng.choice(["zone-2", "zone-3"]), rng.choice(["10.2.1.0/24", "10.3.0.0/16"])
    return {
        "kind": "Node",
        "metadata": {"name": name, "labels": {"topology.kubernetes.io/zone": zone}},
        "spec": {"podCIDRs": [network]},
        "status": {"addresses": [{"type": "InternalIP", "address": OTHER_NODE_IP}]},
    }
