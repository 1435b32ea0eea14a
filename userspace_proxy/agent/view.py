"""Builds the status view from the plan, the listeners and the counters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from ..dataplane import ITERATION_BOUNDS_S
from ..errors import ListenError
from ..model import Balance, Frontend, FrontendKind, ServiceKey, SocketAddress
from ..plan import Plan
from ..plane import Plane, PlaneState, WorkerState
from ..policy import EndpointVerdict, Scope
from ..sources import Source
from ..status.view import (
    BridgeView,
    ClientAddressView,
    EndpointView,
    FirewallView,
    FrontendView,
    HealthCheckView,
    IgnoredView,
    ServicePortView,
    SourceView,
    StatusView,
    SteeringView,
    SyncView,
    TrackingView,
    UnservedView,
    WorkerView,
)
from ..steering import Bind, Steering
from ..steering.others import Firewall
from ..version import __version__
from .client_address import ClientAddresses
from .listeners import Listeners, ServedPort
from .options import Options
from .sync import SyncCounters, SyncLoop
from .tracking import TrackingWatch

# Ports are in TIME_WAIT for a minute: who was short of them then is so again.
_RECENT_S = 60.0

_POLICIES = {
    Scope.CLUSTER: "",
    Scope.LOCAL: "only this node's endpoints",
    Scope.LOCAL_FROM_OUTSIDE: "from outside: only this node's endpoints",
}
# A node port stands on many addresses, and those of the Service alone are what one looks for.
_KINDS = (
    FrontendKind.CLUSTER_IP,
    FrontendKind.LOAD_BALANCER,
    FrontendKind.EXTERNAL_IP,
    FrontendKind.NODE_PORT,
)


def view_ports(
    listeners: Listeners, plane: Plane, bind: Bind, now: float
) -> tuple[ServicePortView, ...]:
    """Return the Service ports that are served, by name.

    Args:
        listeners: What is open.
        plane: Its byte counters are brought up to date, where that needs no waiting.
        bind: Decides how a frontend's target is worded.
        now: Monotonic seconds.
    """
    plane.settle()
    served = sorted(listeners, key=lambda s: s.plan.key)
    return tuple(_view_port(port, bind, now) for port in served)


def view_proxy(
    ports: tuple[ServicePortView, ...],
    *,
    health_checks: tuple[HealthCheckView, ...] = (),
    options: Options,
    started: float,
    source: Source,
    steering: Steering | None,
    sync: SyncLoop | None,
    plane: PlaneState,
    is_draining: bool,
    client_addresses: ClientAddresses | None = None,
    tracking: TrackingWatch | None = None,
    firewalls: Iterable[Firewall] = (),
    unserved: Iterable[ListenError] = (),
) -> StatusView:
    """Return all that is known of a proxy.

    Args:
        ports: As :func:`view_ports` makes them; empty for who needs the rest alone.
        health_checks: As :func:`view_health_checks` makes them; likewise.
        options: What the proxy was told.
        started: Unix time of its start.
        source: Where its Services come from.
        steering: None before the start and after the end, as the next two.
        sync: Has the plan in force and how the rounds went.
        plane: How the data plane is doing.
        is_draining: Whether it is being stopped.
        client_addresses: None where clients' addresses aren't to be kept.
        tracking: None where the node's connection tracking isn't watched.
        firewalls: Those of others that are in the way.
        unserved: Why status addresses can't be had.
    """
    counters = sync.counters if sync else SyncCounters()
    status = source.status()
    problem = sync.steering_problem if sync else ""
    return StatusView(
        version=__version__,
        node=options.node_name,
        started=started,
        revision=sync.plan.revision if sync else 0,
        source=SourceView(
            kind=source.kind,
            location=source.location,
            is_synced=status.is_synced,
            problems=status.problems,
            restarts=status.restarts,
        ),
        steering=SteeringView(
            name=steering.name if steering else "none",
            problem=problem,
            has_drifted=sync.has_drifted if sync else False,
            repairs=counters.repairs,
            helper_restarts=steering.helper_restarts if steering else 0,
            unguarded=steering.unguarded if steering else "",
        ),
        sync=SyncView(
            rounds=counters.rounds,
            failures=counters.failures,
            last_s=counters.last_s,
            last_queued=counters.last_queued,
            last_done=counters.last_done,
            waiting_since=counters.waiting_since,
            # While it drains, the loop has been stopped on purpose.
            service_changes=counters.changes.services,
            service_changes_pending=counters.changes.services - counters.in_force.services,
            endpoint_changes=counters.changes.endpoints,
            endpoint_changes_pending=counters.changes.endpoints - counters.in_force.endpoints,
            turned_s_ago=sync.turned_s_ago if sync and not is_draining else 0.0,
            # The last round went well; it is what came after it that didn't.
            problem="" if sync and sync.has_drifted else problem,
        ),
        client_address=view_client_address(client_addresses),
        tracking=view_tracking(tracking),
        firewalls=tuple(FirewallView(f.chain, f.why, f.way_out) for f in firewalls),
        unserved=tuple(UnservedView(error.message, error.hint) for error in unserved),
        ports=ports,
        ignored=view_ignored(sync.plan) if sync else (),
        health_checks=health_checks,
        descriptors=plane.descriptors,
        descriptor_limit=plane.descriptor_limit,
        is_accepting=plane.is_accepting,
        workers=tuple(_view_worker(worker) for worker in plane.workers),
        worker_problems=plane.problems,
        config=options.config,
        dropped_log_lines=options.dropped_log_lines(),
        is_ready=bool(sync and sync.is_synced and plane.is_running) and not is_draining,
        is_draining=is_draining,
        node_is_eligible=not (sync and sync.node_is_being_deleted),
    )


def _view_worker(worker: WorkerState) -> WorkerView:
    status = worker.status
    iterations = tuple(zip((*ITERATION_BOUNDS_S, None), status.iterations, strict=False))
    return WorkerView(
        worker.index,
        worker.pid,
        worker.restarts,
        status.connections,
        status.flows,
        iterations,
        status.iterations_s,
    )


def view_client_address(client_addresses: ClientAddresses | None) -> ClientAddressView:
    """Return whether endpoints see their clients' own addresses."""
    if client_addresses is None:
        return ClientAddressView()
    why_not, problem = client_addresses.why_not, client_addresses.problem
    return ClientAddressView(
        is_on=not why_not and not problem,
        why_not=why_not,
        problem=problem,
        repairs=client_addresses.repairs,
        bridges=tuple(
            BridgeView(bridge, f"IPv{version}", cause, hint)
            for bridge, version, cause, hint in client_addresses.bridge_obstacles
        ),
    )


def view_tracking(tracking: TrackingWatch | None) -> TrackingView:
    """Return how full the node's table of connection tracking is."""
    if tracking is None:
        return TrackingView()
    return TrackingView(*tracking.table, is_full=tracking.is_full, is_dropping=tracking.is_dropping)


def view_ignored(plan: Plan) -> tuple[IgnoredView, ...]:
    """Return the Services and ports that get no listener."""
    return tuple(IgnoredView(str(i.service), i.port, i.reason, i.is_conflict) for i in plan.ignored)


def view_health_checks(
    plan: Plan, problems: Mapping[ServiceKey, str]
) -> tuple[HealthCheckView, ...]:
    """Return the health check node ports of a plan, by Service.

    Args:
        plan: The one in force.
        problems: Why some aren't served, or not everywhere.
    """
    return tuple(
        HealthCheckView(str(key), check.port, check.local_endpoints, problems.get(key, ""))
        for key, check in sorted(plan.health_checks.items())
    )


def _view_port(served: ServedPort, bind: Bind, now: float) -> ServicePortView:
    plan = served.plan
    totals = served.group.totals()
    ejected = served.group.ejected(now)
    counters = served.group.counters
    return ServicePortView(
        namespace=plan.key.name.namespace,
        service=plan.key.name.name,
        port=plan.key.name.port,
        family=str(plan.key.family),
        protocol=str(plan.protocol),
        frontends=tuple(_view_frontend(served, f, bind) for f in _by_kind(plan.frontends)),
        endpoints=tuple(_view_endpoint(served, v, ejected) for v in plan.endpoints),
        reason=plan.reason,
        side=str(plan.key.side),
        is_dropping=not plan.is_refusing and bool(plan.reason),
        policy=_POLICIES[plan.scope],
        admits=plan.admits,
        balance="" if plan.balance is Balance.ROUND_ROBIN else str(plan.balance),
        affinity_timeout_s=plan.affinity_timeout_s,
        notes=plan.notes,
        problem=served.problem,
        way_out=served.way_out,
        active=totals.active,
        connections=totals.connections,
        preserved=totals.preserved,
        refused=counters.refused,
        dropped_datagrams=counters.dropped_datagrams,
        evicted=counters.evicted_connections + counters.evicted_flows,
        shortages=counters.shortages,
        is_out_of_ports=now - served.group.out_of_ports_at < _RECENT_S,
        is_out_of_client_ports=now - served.group.out_of_client_ports_at < _RECENT_S,
        received_bytes=totals.received_bytes,
        sent_bytes=totals.sent_bytes,
    )


def _by_kind(frontends: Sequence[Frontend]) -> list[Frontend]:
    return sorted(frontends, key=lambda frontend: _KINDS.index(frontend.kind))


def _view_frontend(served: ServedPort, frontend: Frontend, bind: Bind) -> FrontendView:
    is_held = frontend in served.held_by_others
    is_unsteered = frontend in served.unsteered
    return FrontendView(
        address=str(frontend.address),
        kind=str(frontend.kind),
        target="held by another program" if is_held else _target(served, frontend, bind),
        is_reached=frontend in served.listeners and not is_held and not is_unsteered,
    )


def _target(served: ServedPort, frontend: Frontend, bind: Bind) -> str:
    if frontend in served.unsteered:
        return "not routed to this node"
    listener = served.listeners.get(frontend)
    if listener is None or not listener.is_serving:
        return "refused"
    if served.plan.admits == ():
        return "dropped"
    if bind is Bind.PROXY_PORT:
        return f"proxy port {listener.address.port}"
    if listener.address == frontend.address:
        return "listens there"
    return str(listener.address)


def _view_endpoint(
    served: ServedPort, verdict: EndpointVerdict, ejected: Mapping[SocketAddress, float]
) -> EndpointView:
    counters = served.group.counters_of(verdict.address)
    return EndpointView(
        address=str(verdict.address),
        state=verdict.reason,
        is_usable=verdict.is_usable,
        node=verdict.node,
        ejected_for_s=ejected.get(verdict.address),
        active=counters.active,
        connections=counters.connections,
        preserved=counters.preserved,
        failures=counters.failures,
        received_bytes=counters.received_bytes,
        sent_bytes=counters.sent_bytes,
    )
