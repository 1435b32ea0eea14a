"""The JSON responses: ``/api/v1/status`` and ``/configz``."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING

import msgspec

from .answer import (
    BridgeAnswer,
    ClientAddressAnswer,
    EndpointAnswer,
    FrontendAnswer,
    HealthCheckAnswer,
    IgnoredAnswer,
    LastStateAnswer,
    PortAnswer,
    StateAnswer,
    StatusAnswer,
    TotalsAnswer,
    UnservedAnswer,
)
from .judging import RememberingJudge
from .paths import is_probed
from .port_state import PortState
from .problems import summarise
from .selection import Selected, Selection, select
from .view import (
    ClientAddressView,
    EndpointView,
    FrontendView,
    HealthCheckView,
    LastStateView,
    StatusView,
    TotalsView,
)

if TYPE_CHECKING:
    from ..plan import IgnoredService

_encoder = msgspec.json.Encoder()


def render_status(view: StatusView, *, now: float, selection: Selection | None = None) -> bytes:
    """Return a view as JSON, with the words of the page.

    Args:
        selection: Which Service ports, ignored Services and health checks; None for all. The page
            number is ignored, and ``problems`` covers all of them.
    """
    return encode_answer(make_answer(view, now=now, selection=selection or Selection()))


def encode_answer(answer: object) -> bytes:
    """Return an answer, or a part of one, as a line of JSON."""
    try:
        return _encoder.encode(answer) + b"\n"
    except UnicodeEncodeError:
        # Half of a surrogate pair, which JSON can contain as an escape only.
        return json.dumps(msgspec.to_builtins(answer)).encode() + b"\n"


def make_port(one: Selected) -> PortAnswer:
    """Return the part of the answer about one Service port."""
    port, plan, traffic = one.port, one.port.plan, one.port.traffic
    namespace, service, name = plan.key.name
    return PortAnswer(
        namespace=namespace,
        service=service,
        port=name,
        family=str(plan.key.family),
        protocol=plan.protocol,
        side=plan.key.side,
        frontends=[_frontend(frontend) for frontend in port.frontends],
        endpoints=[_endpoint(endpoint) for endpoint in port.endpoints],
        cause=plan.cause,
        is_dropping=plan.is_dropping,
        policy=port.policy,
        admits=plan.admits,
        balance=port.balance,
        slow_start_s=plan.handling.slow_start_s,
        max_connections=plan.handling.max_connections,
        hold_s=None if plan.handling.hold is None else plan.handling.hold.seconds,
        path=port.path.now,
        path_since=port.path.since,
        path_why=port.path.why,
        kernel_connections=port.path.kernel_connections,
        is_probed=is_probed(plan),
        affinity_timeout_s=plan.affinity_timeout_s,
        notes=plan.notes,
        problem=port.problem,
        way_out=port.way_out,
        active=traffic.active,
        connections=traffic.connections,
        failures=traffic.failures,
        preserved=traffic.preserved,
        received_bytes=traffic.received_bytes,
        sent_bytes=traffic.sent_bytes,
        resets=traffic.resets,
        empty=traffic.empty,
        failures_by_cause=port.failures_by_cause,
        saved=port.saved,
        connect_times=port.connect_times,
        first_byte_times=port.first_byte_times,
        refused=port.refused,
        denied=port.denied,
        turned_away=port.turned_away,
        dropped_datagrams=port.dropped_datagrams,
        evicted=port.evicted,
        evicted_for_memory=port.evicted_for_memory,
        ended_by_removal=port.ended_by_removal,
        bad_headers=port.bad_headers,
        shortages=port.shortages,
        waits=port.waits,
        is_out_of_ports=port.is_out_of_ports,
        is_out_of_client_ports=port.is_out_of_client_ports,
        state=_state(one.state),
    )


def make_answer(
    view: StatusView,
    *,
    now: float,
    selection: Selection,
    port: Callable[[Selected], PortAnswer] = make_port,
) -> StatusAnswer:
    """Return the answer that :func:`render_status` writes.

    Args:
        port: Makes the part about one Service port.
    """
    judge = RememberingJudge()
    chosen = select(view, selection, judge=judge)
    summary = summarise(view, now, judge=judge)
    return StatusAnswer(
        now=now,
        level=summary.level,
        verdict=summary.verdict,
        problems=summary.problems,
        version=view.version,
        node=view.node,
        started=view.started,
        revision=view.revision,
        source=view.source,
        steering=view.steering,
        sync=view.sync,
        last_state=_last_state(view.last_state, now),
        client_address=_client_address(view.client_address),
        tracking=view.tracking,
        probes=view.probes,
        firewalls=view.firewalls,
        unserved=[UnservedAnswer(problem=e.message, way_out=e.hint) for e in view.unserved],
        ports=[port(one) for one in chosen.ports],
        totals=_totals(view.totals),
        ignored=[_ignored(item) for item in chosen.ignored],
        health_checks=[_health_check(item) for item in chosen.health_checks],
        descriptors=view.descriptors,
        descriptor_limit=view.descriptor_limit,
        is_accepting=view.is_accepting,
        memory=view.memory,
        is_ready=view.is_ready,
        is_draining=view.is_draining,
        workers=view.workers,
        worker_problems=view.worker_problems,
        dropped_log_lines=view.dropped_log_lines,
        node_is_eligible=view.node_is_eligible,
        network_namespace=view.network_namespace,
    )


def render_configz(view: StatusView) -> bytes:
    """Return the settings in force as JSON, each with its value and origin."""
    settings = {
        name: {"value": _plain(value), "origin": origin}
        for name, value, origin in sorted(view.config)
    }
    return json.dumps({"settings": settings}, indent=2).encode() + b"\n"


def _state(state: PortState) -> StateAnswer:
    return StateAnswer(
        level=state.level,
        word=state.word,
        sentence=state.sentence,
        causes=state.causes,
        way_out=state.way_out,
        code=state.code,
    )


def _frontend(view: FrontendView) -> FrontendAnswer:
    return FrontendAnswer(
        address=str(view.frontend.address),
        kind=view.frontend.kind,
        target=view.target,
        is_reached=view.is_reached,
    )


def _endpoint(view: EndpointView) -> EndpointAnswer:
    verdict, traffic = view.verdict, view.traffic
    return EndpointAnswer(
        address=str(verdict.address),
        state=verdict.reason,
        is_usable=verdict.is_usable,
        weight=verdict.weight,
        priority=verdict.priority,
        is_standby=verdict.is_standby,
        starting=view.starting,
        preference=view.preference,
        node=verdict.node,
        ejected_for_s=view.ejected_for_s,
        cause=view.cause,
        active=traffic.active,
        connections=traffic.connections,
        failures=traffic.failures,
        preserved=traffic.preserved,
        received_bytes=traffic.received_bytes,
        sent_bytes=traffic.sent_bytes,
        resets=traffic.resets,
        empty=traffic.empty,
        failures_by_cause=view.failures_by_cause,
        answered_at=view.answered_at,
    )


def _totals(view: TotalsView) -> TotalsAnswer:
    return TotalsAnswer(
        **view.traffic._asdict(),
        failures_by_cause=view.failures_by_cause,
        saved=view.saved,
        connect_times=view.connect_times,
        first_byte_times=view.first_byte_times,
        refused=view.refused,
        denied=view.denied,
        dropped_datagrams=view.dropped_datagrams,
        evicted=view.evicted,
        evicted_for_memory=view.evicted_for_memory,
        ended_by_removal=view.ended_by_removal,
        bad_headers=view.bad_headers,
        shortages=view.shortages,
        waits=view.waits,
        kernel_connections=view.kernel_connections,
    )


def _ignored(item: IgnoredService) -> IgnoredAnswer:
    return IgnoredAnswer(
        service=str(item.service), port=item.port, cause=item.cause, is_conflict=item.is_conflict
    )


def _health_check(view: HealthCheckView) -> HealthCheckAnswer:
    return HealthCheckAnswer(
        service=str(view.check.service),
        port=view.check.port,
        local_endpoints=view.check.local_endpoints,
        problem=view.problem,
    )


def _last_state(view: LastStateView, now: float) -> LastStateAnswer:
    return LastStateAnswer(
        path=view.path,
        served_at=view.served_at,
        problem=view.problem,
        failing_since=view.failing_since,
        failures=view.failures,
        age_s=view.age_s(now) if view.served_at else None,
    )


def _client_address(view: ClientAddressView) -> ClientAddressAnswer:
    return ClientAddressAnswer(
        is_on=view.is_on,
        why_not=view.why_not,
        problem=view.problem,
        repairs=view.repairs,
        bridges=[
            BridgeAnswer(name=bridge, family=f"IPv{version}", cause=cause, hint=hint)
            for bridge, version, cause, hint in view.bridges
        ],
    )


def _plain(value: object) -> object:
    """Return a form of a setting's value that JSON can express; infinity is null."""
    match value:
        case float() if not math.isfinite(value):
            return None
        case dict():
            return {str(key): _plain(item) for key, item in value.items()}
        case list() | tuple():
            return [_plain(item) for item in value]
        case set() | frozenset():
            return sorted(map(str, value))
        case None | bool() | int() | float() | str():
            return value
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
    return str(value)
