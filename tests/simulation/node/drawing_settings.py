"""Draws settings of an agent that differ from the defaults."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from random import Random
from typing import Any

from ..plan import Event
from .plan import CLOCK, PUT, Object, Plan, Settings

SETTINGS = 0.3
"""The share of plans with settings other than the defaults."""

# This node's part of the cluster's pod networks.
_OWN_PODS = "10.2.0.0/24"
_CHOICES: Mapping[str, Sequence[Any]] = {
    # Networks that contain all, some or none of a plan's addresses.
    "external_networks": ((), ("198.51.100.0/28",), ("198.51.100.0/29", "192.0.2.77/32")),
    "node_port_networks": (
        ("primary",),
        ("localhost",),
        ("primary", "localhost"),
        ("10.1.0.0/29",),
        ("10.1.0.8/29", "203.0.113.0/24"),
    ),
    "allows_node_endpoints": (True,),
    "has_only_own_pods": (True,),
    "min_period_s": (0.3,),
    "state_max_age_s": (60.0,),
    "path": ("kernel", "auto"),
}


def with_settings(rng: Random, plan: Plan) -> Plan:
    """Return a plan with one to three changed settings."""
    names = rng.sample(sorted(_CHOICES), rng.choice([1, 2, 3]))
    settings = Settings()._replace(**{name: rng.choice(_CHOICES[name]) for name in names})
    return replace(
        plan,
        features=plan.features | {"settings"},
        objects=tuple(map(_with_own_pods, plan.objects)),
        events=tuple(_with(settings, event) for event in plan.events),
        settings=settings,
    )


def _with(settings: Settings, event: Event) -> Event:
    if event.what == PUT:
        return Event(event.at, PUT, (_with_own_pods(event.args[0]),))
    is_old = event.what == CLOCK and event.args[0] > 1.0
    if is_old and settings.state_max_age_s < Settings().state_max_age_s:
        # With the default setting, the saved state wouldn't be too old.
        return Event(event.at, CLOCK, (1.5 * settings.state_max_age_s,))
    return event


def _with_own_pods(item: Object) -> Object:
    """Return an object; if it is a Node, with its own pod network."""
    return {**item, "spec": {"podCIDRs": [_OWN_PODS]}} if item["kind"] == "Node" else item
