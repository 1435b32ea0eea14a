"""Derives the facts about a Service port, its frontends and its endpoints from the plan alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from ..model import (
    Balance,
    DataPath,
    Frontend,
    FrontendKind,
    Handling,
    Protocol,
    is_loopback,
)
from ..plan import IgnoredService, PortPlan
from ..policy import EndpointVerdict, Scope
from .node import IgnoredFacts
from .port import EndpointFacts, FrontendFacts, PortFacts

_POLICIES = {
    Scope.CLUSTER: "",
    Scope.LOCAL: "only this node's endpoints",
    Scope.LOCAL_FROM_OUTSIDE: "from outside: only this node's endpoints",
}


# The kinds of frontends in display order; node ports are last, because they have many addresses.
_KINDS = (
    FrontendKind.CLUSTER_IP,
    FrontendKind.LOAD_BALANCER,
    FrontendKind.EXTERNAL_IP,
    FrontendKind.NODE_PORT,
)


def in_order(plan: PortPlan) -> Sequence[Frontend]:
    """Return frontends in display order, with all ports of a range as one frontend."""
    shown, ranges = plan.frontends, [one for one in plan.frontends if one.last]
    for asked in plan.serving.ranges:
        # Find the ports of the range that are separate frontends.
        each = [one for one in plan.frontends if not one.last and asked.offset(*one.address)]
        ranges += [replace(one, port=asked.first, last=asked.last) for one in each[:1]]
    if ranges:
        shown = (*(one for one in shown if not one.last), *ranges)
        shown = tuple(one for one in shown if one.last or not any(r.has(one) for r in ranges))
    return sorted(shown, key=lambda one: (_KINDS.index(one.kind), is_loopback(one.address.ip)))


def facts_of_plan(
    plan: PortPlan, frontends: Iterable[FrontendFacts], endpoints: Iterable[EndpointFacts]
) -> PortFacts:
    """Return the facts about a Service port that follow from its plan; all figures are 0.

    Args:
        frontends: ClusterIPs first, node ports last.
        endpoints: In the order of the plan.
    """
    key, handling = plan.key, plan.serving.handling
    namespace, service, port = key.name
    facts = PortFacts(
        namespace,
        service,
        port,
        str(key.family),
        plan.protocol,
        key.side,
        tuple(frontends),
        tuple(endpoints),
        plan.cause,
        plan.is_dropping,
        _POLICIES[plan.scope],
        plan.serving.admits,
        _balance(handling),
        handling.slow_start_s,
        handling.max_connections,
        None if handling.hold is None else handling.hold.seconds,
        plan.path.path,
        path_reason=plan.path.why,
        is_probed=is_probed(plan),
        affinity_timeout_s=plan.serving.affinity_timeout_s,
        notes=plan.notes,
        proxy_protocol=handling.proxy_protocol,
        shared_number=f"{plan.shared_number}/{plan.protocol}" if plan.shared_number else "",
    )
    facts.plan = plan
    return facts


def facts_of_verdict(verdict: EndpointVerdict, starting: float | None = None) -> EndpointFacts:
    """Return the facts about an endpoint that follow from the plan.

    Args:
        starting: The fraction of its share during slow start; None for its full share.
    """
    preference = verdict.preference
    if starting is not None:
        slow = f"starts slowly: {100 * starting:.0f} %"
        preference = f"{preference}, {slow}" if preference else slow
    return EndpointFacts(
        str(verdict.address),
        verdict.reason,
        verdict.is_usable,
        verdict.code,
        verdict.weight,
        verdict.priority,
        verdict.is_standby,
        starting,
        preference,
        verdict.node,
        host=verdict.host,
        pod=verdict.pod,
    )


def facts_of_frontend(
    frontend: Frontend, target: str = "", *, is_reached: bool = True, only_at: str = ""
) -> FrontendFacts:
    """Return the facts about a frontend.

    Args:
        target: The target in words; empty if no proxy is running.
        is_reached: Whether clients that dial it reach this proxy.
        only_at: The address that clients must dial instead; empty if they can dial the frontend.
    """
    return FrontendFacts(frontend.dialled, frontend.kind, target, is_reached, only_at)


def facts_of_ignored(items: Iterable[IgnoredService]) -> list[IgnoredFacts]:
    """Return the facts about Services and ports that aren't served on any address."""
    return [
        IgnoredFacts(str(i.service), i.port, i.cause, i.is_conflict) for i in items if not i.is_part
    ]


def is_probed(plan: PortPlan) -> bool:
    """Return whether probes of a Service port's endpoints choose its path."""
    is_auto = plan.path.path is DataPath.AUTO
    return is_auto and plan.protocol is Protocol.TCP and bool(plan.serving.endpoints)


def _balance(handling: Handling) -> str:
    if handling.balance is not Balance.ROUND_ROBIN:
        return str(handling.balance)
    return str(Balance.LEAST_CONNECTIONS) if handling.max_connections else ""
