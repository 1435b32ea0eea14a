"""Fills in the facts about Service ports from the plan, the listeners and the counters."""

from __future__ import annotations

from collections.abc import Mapping
from operator import attrgetter

from ..causes.cause import Cause
from ..causes.services import (
    hop_limit_reached,
    no_proxy_header,
    none_was_local,
    source_denied,
    source_was_denied,
)
from ..clocks import Clocks
from ..dataplane import Waiting
from ..diagnosis.failures import becomes_past, cause_of_endpoint, is_quiet, seen, without_silence
from ..diagnosis.paths import format_target
from ..diagnosis.symptoms import failed_last_minute
from ..facts import (
    GAUGES,
    LAST_MINUTE_S,
    ClientMistake,
    CounterTable,
    Durations,
    EndpointCounters,
    EndpointFacts,
    FrontendFacts,
    GroupCounters,
    PortFacts,
    PortFigures,
    PortState,
    StatusFacts,
    Times,
    TotalsFacts,
    Traffic,
    TrafficByCause,
    WaitCounts,
    Waits,
    counted_names,
    facts_of_frontend,
    facts_of_plan,
    facts_of_verdict,
    in_order,
)
from ..model import Frontend, SocketAddress
from ..model.handling import Balance
from ..plan import PortPlan
from ..plan.detours import Faults
from ..plane import Group, Plane, Totals
from ..plane.denials import DropReason
from ..policy import EndpointVerdict
from ..steering import Bind, KernelTarget
from .rounds.served_port import ServedPort
from .rounds.served_ports import ServedPorts
from .rounds.tasks import Pace
from .rounds.wall_clock import NEVER, WallClock

# A closed connection occupies its source port in TIME_WAIT for a minute, so a shortage counts as
# current for a minute.
_RECENT_S = 60.0
_NOTHING = CounterTable()
_NAMES = counted_names(PortFigures)
_TRAFFIC_NAMES = counted_names(Traffic)
_traffic_of = attrgetter(*_TRAFFIC_NAMES)
_WAIT_NAMES = counted_names(WaitCounts)
_MISTAKES = {
    ClientMistake.NO_PROXY_HEADER: no_proxy_header,
    ClientMistake.HOP_LIMIT: hop_limit_reached,
}


def view_ports(
    served_ports: ServedPorts, plane: Plane, bind: Bind, clock: WallClock
) -> tuple[PortFacts, ...]:
    """Return the facts about served Service ports, sorted by name, without their states.

    Facts about an unchanged Service port without ejections and waits are reused from earlier calls.

    Args:
        plane: The plane, whose counters are updated as far as that is possible without waiting.
        bind: Determines the words for a frontend's target.
        clock: The node's clocks; the monotonic clock must be the plane's.
    """
    plane.settle()
    clock.tick()
    served = sorted(served_ports, key=lambda s: s.plan.key)
    return tuple(
        _reuse_view(port, bind, clock, served_ports.detours.faults_of(port.plan)) for port in served
    )


async def prepare_views(
    served_ports: ServedPorts, plane: Plane, bind: Bind, clock: WallClock
) -> float:
    """Collect the facts about Service ports in steps, so that :func:`view_ports` can reuse most.

    For 100,000 endpoints of one namespace, this takes 0.4 s of the event loop.

    Returns:
        The duration in seconds, without other tasks in between.
    """
    plane.settle()
    clock.tick()
    pace, took_s = Pace(), 0.0
    for port in list(served_ports):
        began = Clocks.monotonic()
        _reuse_view(port, bind, clock, served_ports.detours.faults_of(port.plan))
        took_s += Clocks.monotonic() - began
        await pace.turn()
    return took_s


def show_totals(facts: StatusFacts, totals: Totals) -> None:
    """Fill in sums over all Service ports; gauges and waits cover only ports in the facts."""
    ports, shown = facts.ports, TotalsFacts()
    show_traffic(shown, totals.endpoints)
    for name in GAUGES:
        setattr(shown, name, sum(getattr(port, name) for port in ports))
    waits = [port.waits for port in ports if port.waits.waiting]
    waiting = sum(w.waiting for w in waits), max((w.longest_s for w in waits), default=0.0)
    _show_counted(shown, totals.counters, Waiting(*waiting))
    shown.connect_times = _times(totals.connect_times)
    shown.first_byte_times = _times(totals.first_byte_times)
    facts.totals = shown


def _show_counted(
    facts: PortFigures, counters: GroupCounters, waiting: Waiting, problem: str = ""
) -> None:
    """Copy the facts about waiting clients, and all counters except the endpoints' counters."""
    for name in _NAMES:
        setattr(facts, name, getattr(counters, name))
    counted = {name: getattr(counters.waits, name) for name in _WAIT_NAMES}
    facts.waits = Waits(waiting.clients, waiting.longest_s, problem=problem, **counted)


def _times(durations: Durations) -> Times:
    return Times(durations.bounds, tuple(durations.counts()), durations.seconds)


def _reuse_view(served: ServedPort, bind: Bind, clock: WallClock, faults: Faults) -> PortFacts:
    """Return a Service port's last view if it is current, else a new view, which takes 30 µs."""
    group, now = served.group, clock.now
    made_from = (
        clock.unix(0.0),
        group.revision,
        now - group.out_of_ports_at < _RECENT_S,
        now - group.out_of_client_ports_at < _RECENT_S,
        [now - one.part.last_at < LAST_MINUTE_S for one in group.client_mistakes.values()],
        group.last_minute.failing(now),
        (served.not_listening, served.unsteered, served.perhaps_taken),
        (served.wake_problem, served.other_ports),
        (served.path, served.steered),
        served.held_by_others,
        [(each.address, each.is_serving) for each in served.listeners.values()],
        {endpoint: list(words) for endpoint, words in faults.items()} if faults else None,
    )
    # Ejections and waits prevent reuse, because their facts contain durations.
    if served.shown is not None and not group.has_passing:
        view, before = served.shown
        if view.plan is served.plan and before == made_from and not becomes_past(view, clock):
            return view
    view = _view_port(served, bind, clock, faults)
    served.shown = view, made_from
    return view


def _view_port(served: ServedPort, bind: Bind, clock: WallClock, faults: Faults) -> PortFacts:
    plan, group, now = served.plan, served.group, clock.now
    ejected, starting = group.ejected(now), group.starting(now)
    facts = facts_of_plan(
        plan,
        (view_frontend(served, frontend, bind) for frontend in in_order(plan)),
        (view_endpoint(v, group, clock, ejected, starting, faults) for v in plan.verdicts),
    )
    counted = group if group.has_counted else _NOTHING
    show_traffic(facts, counted.totals())
    _show_counted(facts, counted.counters, group.waiting(now), served.wake_problem)
    times = counted.connect_times, counted.first_byte_times
    facts.connect_times, facts.first_byte_times = map(_times, times)
    served.path.show(facts, clock.unix(served.path.since or NEVER))
    facts.problem, facts.hint = served.problem, served.hint
    facts.taken_by, facts.is_unsteered = served.taken_by, served.is_unsteered
    facts.perhaps_taken = served.perhaps_taken
    facts.cause = facts.cause and _dated(facts.cause, clock)
    facts.notes = tuple(_dated(note, clock) for note in facts.notes)
    facts.turned_away = turned_away(plan, group, clock)
    facts.other_ports = served.other_ports
    facts.client_mistakes = client_mistakes(group, clock, has_served=facts.connections > 0)
    facts.is_out_of_ports = now - group.out_of_ports_at < _RECENT_S
    facts.is_out_of_client_ports = now - group.out_of_client_ports_at < _RECENT_S
    facts.last_minute = failed_last_minute(
        group.last_minute.failing(now),
        ((v, group.read_counters(v.address)) for v in plan.verdicts if v.is_usable),
        clock,
        failed_at=group.failed_at,
        has_header=facts.proxy_protocol is not None,
        was_many=served.shown is not None
        and served.shown[0].state.word is PortState.PARTLY_ANSWERING,
        are_pinned=facts.affinity_timeout_s is not None or facts.balance == Balance.SOURCE_HASH,
    )
    facts.sent_at = clock.unix(group.sent_at)
    facts.is_quiet = is_quiet(facts, clock)
    facts.endpoints = without_silence(facts)
    return facts


def _dated(cause: Cause, clock: WallClock) -> Cause:
    """Return a plan's cause with its monotonic time converted to Unix time."""
    return cause.replace(first_at=clock.unix(cause.first_at)) if cause.first_at else cause


def client_mistakes(group: Group, clock: WallClock, *, has_served: bool) -> tuple[Cause, ...]:
    """Return the mistakes of rejected clients: recent ones, or all if no client was served.

    Args:
        has_served: Whether at least one client was served.
    """
    return tuple(
        seen(_MISTAKES[mistake](streak.part.client), streak, clock)
        for mistake, streak in group.client_mistakes.items()
        if not has_served or clock.now - streak.part.last_at < LAST_MINUTE_S
    )


def turned_away(plan: PortPlan, group: Group, clock: WallClock) -> tuple[Cause, ...]:
    """Return why clients were dropped, with counts; empty if none was, or all are admitted now."""
    admits = plan.serving.admits
    if admits is None:
        return ()
    denials, policy = group.denials, plan.cause if plan.is_dropping else None
    ranges = admits if policy is None else denials.ranges or ()
    words = [
        (DropReason.RANGES, source_denied(tuple(ranges))),
        (DropReason.POLICY, policy or none_was_local()),
        (DropReason.FORMER_RANGES, source_was_denied()),
    ]
    return tuple(
        cause.replace(count=count, first_at=clock.unix(first_at), last_at=clock.unix(last_at))
        for reason, cause in words
        for count, first_at, last_at in (denials.by[reason],)
        if count
    )


def view_endpoint(
    verdict: EndpointVerdict,
    group: Group,
    clock: WallClock,
    ejected: Mapping[SocketAddress, float],
    starting: Mapping[SocketAddress, float],
    faults: Faults,
) -> EndpointFacts:
    """Return the facts about an endpoint; figures are copies because a thread renders pages.

    Args:
        ejected: Seconds until the probe of each ejected endpoint.
        starting: The fraction of its usual share that each endpoint in slow start gets.
    """
    address = verdict.address
    counters = group.read_counters(address)
    facts = facts_of_verdict(verdict, starting.get(address) if verdict.is_usable else None)
    facts.ejected_for_s = ejected.get(address)
    facts.cause, facts.is_past = cause_of_endpoint(
        verdict,
        counters,
        clock,
        obstacle=group.obstacle_to(address),
        faults=faults.get(address, ()),
        has_header=bool(group.serving.handling.proxy_protocol),
    )
    facts.answered_at = clock.unix(counters.dials.succeeded_at)
    facts.sent_at = clock.unix(counters.ends.succeeded_at)
    show_traffic(facts, counters)
    return facts


def show_traffic(facts: TrafficByCause, counters: EndpointCounters) -> None:
    """Copy the counters of an endpoint, or of the sum over endpoints."""
    for name, figure in zip(_TRAFFIC_NAMES, _traffic_of(counters), strict=True):
        # Cost: most figures are 0, which is their default.
        if figure:
            setattr(facts, name, figure)
    if counters.failures:
        facts.failures_by_cause = counters.failures_by_cause()


def view_frontend(served: ServedPort, frontend: Frontend, bind: Bind) -> FrontendFacts:
    """Return the facts about a frontend; ``bind`` determines the words for its target."""
    shown = frontend
    if frontend.last and frontend not in served.plan.frontends:
        # Each port of the range is a frontend: show the state of an unserved port, or the first.
        each = [one for one in served.plan.frontends if frontend.has(one)]
        lacking = (f for f in each if f not in served.listeners or f in served.unsteered)
        frontend = next(lacking, each[0])
    is_held = frontend in served.held_by_others
    target = "held by another program" if is_held else _target(served, frontend, bind)
    return facts_of_frontend(
        shown,
        str(target),
        is_reached=frontend in served.listeners and not (is_held or frontend in served.unsteered),
        only_at=str(target) if isinstance(target, SocketAddress) else "",
    )


def _target(served: ServedPort, frontend: Frontend, bind: Bind) -> str | SocketAddress:
    """Return a frontend's target as text, or the address that clients must dial instead."""
    if frontend in served.unsteered:
        return "not steered to this proxy"
    listener = served.listeners.get(frontend)
    if listener is None or not listener.is_serving:
        return "refused" if listener or not served.not_listening else "not served by this proxy"
    if served.plan.serving.admits == ():
        return "dropped"
    if isinstance(target := served.steered.get(frontend), KernelTarget) and target.is_on:
        return format_target(served.path, frontend)
    if bind is Bind.PROXY_PORT:
        return f"proxy port {listener.address.port}"
    return "listens there" if listener.address == frontend.address else listener.address
