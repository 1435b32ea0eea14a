"""Builds the status view from the plan, the listeners and the counters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from typing import Any

from ..dataplane import ITERATION_BOUNDS_S, Durations, GroupCounters, Waiting
from ..errors import ListenError
from ..kernel.own_namespace import network_namespace
from ..model import Cause, FrontendKind, ServiceKey
from ..plan import Plan, PortPlan
from ..plane import Group, Plane, PlaneState, Totals, WorkerState
from ..policy import causes
from ..sources import Source
from ..status.counted import Times, Waits
from ..status.paths import NO_PROBES, ProbesView
from ..status.view import (
    ClientAddressView,
    FirewallView,
    HealthCheckView,
    LastStateView,
    MemoryView,
    ServicePortView,
    SourceView,
    StatusView,
    SteeringView,
    SyncView,
    TotalsView,
    TrackingView,
    WorkerView,
)
from ..steering import Bind, Steering
from ..steering.others import Firewall
from ..version import __version__
from .client_address import ClientAddresses
from .endpoint_view import Faults, traffic_of, view_endpoint
from .frontend_view import view_frontend
from .last_state import LastState
from .options import Options
from .served_ports import ServedPort, ServedPorts
from .sync import SyncLoop
from .tracking import TrackingWatch
from .wall_clock import WallClock

# A closed connection keeps its source port in TIME_WAIT for a minute, so a shortage lasts as long.
_RECENT_S = 60.0

# A node port has many addresses, so the Service's own addresses are listed first.
_KINDS = (
    FrontendKind.CLUSTER_IP,
    FrontendKind.LOAD_BALANCER,
    FrontendKind.EXTERNAL_IP,
    FrontendKind.NODE_PORT,
)


def view_ports(
    served_ports: ServedPorts, plane: Plane, bind: Bind, clock: WallClock
) -> tuple[ServicePortView, ...]:
    """Return the Service ports that are served, by name.

    The view of a Service port is the same object as last time while nothing of it changes.

    Args:
        plane: Its byte counters are updated, where that needs no waiting.
        bind: Decides how a frontend's target is worded.
        clock: The plane's is its monotonic one.
    """
    plane.settle()
    clock.tick()
    served = sorted(served_ports, key=lambda s: s.plan.key)
    faults = served_ports.faults
    return tuple(
        _reuse_view(port, bind, clock, faults.of(port.plan.key.name.service)) for port in served
    )


def view_proxy(
    ports: tuple[ServicePortView, ...],
    *,
    health_checks: tuple[HealthCheckView, ...] = (),
    options: Options,
    started: float,
    source: Source,
    steering: Steering | None,
    sync: SyncLoop | None,
    last_state: LastState | None = None,
    plane: PlaneState,
    is_draining: bool,
    client_addresses: ClientAddresses | None = None,
    tracking: TrackingWatch | None = None,
    firewalls: Iterable[Firewall] = (),
    unserved: Iterable[ListenError] = (),
) -> StatusView:
    """Return the whole view of a proxy.

    Args:
        ports: From :func:`view_ports`; may be left empty if the caller needs only the rest.
        health_checks: From :func:`view_health_checks`; likewise.
        started: Unix time of its start.
        steering: None before the start and after the end, like ``sync``.
        sync: Contains the plan in force and counts the rounds.
        client_addresses: None where client addresses aren't preserved.
        tracking: None where the node's connection tracking isn't watched.
        firewalls: Chains of other programs that drop steered packets.
        unserved: Why status addresses can't be served.
    """
    return StatusView(
        version=__version__,
        node=options.node_name,
        started=started,
        revision=sync.plan.revision if sync else 0,
        source=_view_source(source),
        last_state=last_state.view() if last_state else LastStateView(),
        steering=_view_steering(steering, sync),
        sync=_view_sync(sync, is_stopped=is_draining),
        client_address=view_client_address(client_addresses),
        tracking=view_tracking(tracking),
        firewalls=tuple(FirewallView(f.chain, f.why, f.way_out) for f in firewalls),
        unserved=tuple(unserved),
        ports=ports,
        totals=_view_totals(plane.totals, ports),
        ignored=sync.plan.ignored if sync else (),
        health_checks=health_checks,
        descriptors=plane.descriptors,
        descriptor_limit=plane.descriptor_limit,
        is_accepting=plane.is_accepting,
        memory=MemoryView(*plane.memory),
        workers=tuple(_view_worker(worker) for worker in plane.workers),
        worker_problems=plane.problems,
        config=options.config,
        dropped_log_lines=options.dropped_log_lines(),
        is_ready=bool(sync and sync.is_synced and plane.is_running) and not is_draining,
        is_draining=is_draining,
        node_is_eligible=not (sync and sync.node_is_being_deleted),
        network_namespace=network_namespace(),
    )


def _view_totals(totals: Totals, ports: Iterable[ServicePortView]) -> TotalsView:
    counters, traffic = totals.counters, traffic_of(totals.endpoints)
    return TotalsView(
        traffic._replace(active=sum(port.traffic.active for port in ports)),
        failures_by_cause=totals.endpoints.failures_by_cause(),
        connect_times=_times(totals.connect_times),
        first_byte_times=_times(totals.first_byte_times),
        waits=_waits(counters, _all_waiting(ports)),
        **_counted(counters),
    )


def _counted(counters: GroupCounters) -> dict[str, Any]:
    """Return what totals and Service ports have of these counters, by the same names."""
    names = [f.name for f in fields(TotalsView) if f.name in counters.names]
    evicted = counters.evicted_connections + counters.evicted_flows
    return {"evicted": evicted, **{name: getattr(counters, name) for name in names}}


def _all_waiting(ports: Iterable[ServicePortView]) -> Waiting:
    waits = [port.waits for port in ports if port.waits.waiting]
    return Waiting(sum(w.waiting for w in waits), max((w.longest_s for w in waits), default=0.0))


def _waits(counters: GroupCounters, waiting: Waiting, problem: str = "") -> Waits:
    return Waits(
        waiting=waiting.clients,
        longest_s=waiting.longest_s,
        total=counters.waited,
        timeouts=counters.wait_timeouts,
        overflows=counters.wait_overflows,
        left=counters.waits_left,
        problem=problem,
    )


def _times(durations: Durations) -> Times:
    return Times(durations.bounds, tuple(durations.counts()), durations.seconds)


def _view_source(source: Source) -> SourceView:
    status = source.status()
    return SourceView(
        source.kind, source.location, status.is_synced, status.problems, status.restarts
    )


def _view_steering(steering: Steering | None, sync: SyncLoop | None) -> SteeringView:
    return SteeringView(
        name=steering.name if steering else "none",
        problem=sync.steering_problem if sync else "",
        has_drifted=sync.has_drifted if sync else False,
        repairs=sync.counters.repairs if sync else 0,
        helper_restarts=steering.helper_restarts if steering else 0,
        unguarded=steering.unguarded if steering else "",
    )


def _view_sync(sync: SyncLoop | None, *, is_stopped: bool) -> SyncView:
    """Return the rounds; while the proxy drains, the loop is stopped on purpose."""
    if sync is None:
        return SyncView()
    counters = sync.counters
    changes, in_force = counters.changes, counters.in_force
    return SyncView(
        rounds=counters.rounds,
        failures=counters.failures,
        partial_failures=counters.partial_failures,
        last_s=counters.last_s,
        last_queued=counters.last_queued,
        last_done=counters.last_done,
        waiting_since=counters.waiting_since,
        service_changes=changes.services,
        service_changes_pending=changes.services - in_force.services,
        endpoint_changes=changes.endpoints,
        endpoint_changes_pending=changes.endpoints - in_force.endpoints,
        turned_s_ago=0.0 if is_stopped else sync.turned_s_ago,
        # With drift the last round succeeded, and a repair after it failed.
        problem="" if sync.has_drifted else sync.steering_problem,
    )


def _view_worker(worker: WorkerState) -> WorkerView:
    status = worker.status
    return WorkerView(
        worker.index,
        worker.pid,
        worker.restarts,
        status.connections,
        status.flows,
        tuple(zip((*ITERATION_BOUNDS_S, None), status.iterations, strict=False)),
        status.iterations_s,
        worker.hung,
    )


def view_client_address(client_addresses: ClientAddresses | None) -> ClientAddressView:
    """Return whether endpoints see client addresses."""
    if client_addresses is None:
        return ClientAddressView()
    why_not, problem = client_addresses.why_not, client_addresses.problem
    return ClientAddressView(
        is_on=not why_not and not problem,
        why_not=why_not,
        problem=problem,
        repairs=client_addresses.repairs,
        bridges=client_addresses.bridge_obstacles,
    )


def view_probes(served_ports: ServedPorts | None) -> ProbesView:
    """Return how endpoints are probed for the choice of the path."""
    probes = served_ports.auto_paths.probes if served_ports is not None else None
    if probes is None:
        return NO_PROBES
    schedule = probes.schedule
    return ProbesView(
        len(schedule), schedule.interval_s, schedule.per_second, probes.sent, probes.failed
    )


def view_tracking(tracking: TrackingWatch | None) -> TrackingView:
    """Return how full the node's connection tracking table is."""
    if tracking is None:
        return TrackingView()
    return TrackingView(*tracking.table, is_full=tracking.is_full, is_dropping=tracking.is_dropping)


def view_health_checks(
    plan: Plan, problems: Mapping[ServiceKey, str]
) -> tuple[HealthCheckView, ...]:
    """Return the health check node ports of the plan in force, by Service."""
    return tuple(
        HealthCheckView(check, problems.get(key, ""))
        for key, check in sorted(plan.health_checks.items())
    )


def _reuse_view(
    served: ServedPort, bind: Bind, clock: WallClock, faults: Faults
) -> ServicePortView:
    """Return the last view of a Service port, or a new one if anything of it has changed.

    A new one takes 30 µs, and of thousands of Service ports few change in a second.
    """
    group, now = served.group, clock.now
    made_from = (
        group.revision,
        now - group.out_of_ports_at < _RECENT_S,
        now - group.out_of_client_ports_at < _RECENT_S,
        (served.not_listening, served.unsteered),
        served.wake_problem,
        (served.path, served.steered),
        frozenset(served.held_by_others),
        [(each.address, each.is_serving) for each in served.listeners.values()],
        {endpoint: list(words) for endpoint, words in faults.items()} if faults else None,
    )
    # How long an endpoint stays ejected, or a client has waited, changes with time.
    if served.shown is not None and not group.has_passing:
        view, before = served.shown
        if view.plan is served.plan and before == made_from:
            return view
    view = _view_port(served, bind, clock, faults)
    served.shown = view, made_from
    return view


def _view_port(served: ServedPort, bind: Bind, clock: WallClock, faults: Faults) -> ServicePortView:
    plan, group, now = served.plan, served.group, clock.now
    ejected, starting = group.ejected(now), group.starting(now)
    counters, totals = group.counters, group.totals()
    frontends = sorted(plan.frontends, key=lambda frontend: _KINDS.index(frontend.kind))
    return ServicePortView(
        plan,
        frontends=tuple(view_frontend(served, f, bind) for f in frontends),
        endpoints=tuple(
            view_endpoint(v, group.counters_of(v.address), clock, ejected, starting, faults)
            for v in plan.endpoints
        ),
        traffic=traffic_of(totals),
        failures_by_cause=totals.failures_by_cause(),
        connect_times=_times(group.connect_times),
        first_byte_times=_times(group.first_byte_times),
        problem=served.problem,
        way_out=served.way_out,
        turned_away=_turned_away(plan, group, clock),
        waits=_waits(counters, group.waiting(now), served.wake_problem),
        is_out_of_ports=now - group.out_of_ports_at < _RECENT_S,
        is_out_of_client_ports=now - group.out_of_client_ports_at < _RECENT_S,
        **_counted(counters),
        path=served.path,
    )


def _turned_away(plan: PortPlan, group: Group, clock: WallClock) -> tuple[Cause, ...]:
    if plan.admits is None or group.denied_at is None:
        return ()
    first_at, last_at = map(clock.unix, group.denied_at)
    why = plan.cause if plan.is_dropping else None
    cause = why or causes.source_denied(plan.admits)
    return (replace(cause, count=group.counters.denied, first_at=first_at, last_at=last_at),)
