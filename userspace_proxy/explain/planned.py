"""Plans Services without a running proxy, and returns what its JSON would be."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from ..agent.facts import make_facts, options_with
from ..cluster import Snapshot
from ..plan import Planner, PortPlan
from ..status.api import render_status
from ..status.paths import PathView
from ..status.view import (
    EndpointView,
    FrontendView,
    ServicePortView,
    SourceView,
    StatusView,
    SteeringView,
    SyncView,
    Traffic,
)

if TYPE_CHECKING:
    from ..agent.options import Options

# This machine need not be the node, so node ports are planned at the Node's addresses, or else only
# at these.
_LOOPBACK = ("127.0.0.1", "::1")


def plan_status(
    snapshot: Snapshot, options: Options, *, now: float, is_node: bool = True
) -> dict[str, Any]:
    """Return the JSON of ``/api/v1/status`` that a proxy with these Services would have.

    Args:
        is_node: Endpoints on loopback aren't allowed, as on nodes.
    """
    if not is_node:
        options = options_with("none", options)
    addresses = snapshot.node.addresses if snapshot.node else ()
    plan = Planner(make_facts(options, snapshot, (*addresses, *_LOOPBACK))).plan(snapshot)
    view = StatusView(
        version="",
        node=options.node_name,
        started=now,
        revision=plan.revision,
        source=SourceView("", "", is_synced=True),
        steering=SteeringView("none"),
        sync=SyncView(last_done=now),
        ports=tuple(map(_view, plan.ports.values())),
        ignored=plan.ignored,
    )
    status: dict[str, Any] = json.loads(render_status(view, now=now))
    return status


def _view(plan: PortPlan) -> ServicePortView:
    return ServicePortView(
        plan,
        frontends=tuple(FrontendView(frontend, "") for frontend in plan.frontends),
        endpoints=tuple(EndpointView(verdict, Traffic()) for verdict in plan.endpoints),
        traffic=Traffic(),
        path=PathView(plan.path.path, why=plan.path.why),
    )
