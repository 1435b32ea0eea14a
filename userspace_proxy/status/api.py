"""The JSON responses: ``/api/v1/status`` and ``/configz``."""

from __future__ import annotations

import json
import math
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any

from .port_state import PortState, judge
from .problems import summarise
from .selection import Selection, select
from .view import (
    ClientAddressView,
    EndpointView,
    FrontendView,
    HealthCheckView,
    LastStateView,
    ServicePortView,
    StatusView,
)

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    from ..plan import IgnoredService


def render_status(view: StatusView, *, now: float, selection: Selection | None = None) -> bytes:
    """Return a view as JSON, with the words of the page.

    The words are ``level``, ``verdict`` and ``problems``, and each Service port's ``state``.
    Settings are left to ``/configz``.

    Args:
        selection: Which Service ports, ignored Services and health checks; None for all. The page
            number is ignored, and ``problems`` covers all of them.
    """
    chosen = select(view, selection or Selection())
    answer = _fields(view)
    del answer["config"]
    answer["last_state"] = _last_state(view.last_state, now)
    answer["client_address"] = _client_address(view.client_address)
    answer["unserved"] = [{"problem": e.message, "way_out": e.hint} for e in view.unserved]
    answer["ports"] = [_port(port) for port in chosen.ports]
    answer["ignored"] = [_ignored(item) for item in chosen.ignored]
    answer["health_checks"] = [_health_check(item) for item in chosen.health_checks]
    return _encode({"now": now, **_fields(summarise(view, now)), **answer})


def render_configz(view: StatusView) -> bytes:
    """Return the settings in force as JSON, each with its value and origin."""
    settings = {
        name: {"value": value, "origin": origin} for name, value, origin in sorted(view.config)
    }
    return _encode({"settings": settings}, indent=2)


def _port(port: ServicePortView) -> dict[str, Any]:
    plan = port.plan
    namespace, service, name = plan.key.name
    return {
        "namespace": namespace,
        "service": service,
        "port": name,
        "family": str(plan.key.family),
        "protocol": plan.protocol,
        "side": plan.key.side,
        "frontends": [_frontend(frontend) for frontend in port.frontends],
        "endpoints": [_endpoint(endpoint) for endpoint in port.endpoints],
        "cause": plan.cause,
        "is_dropping": plan.is_dropping,
        "policy": port.policy,
        "admits": plan.admits,
        "balance": port.balance,
        "affinity_timeout_s": plan.affinity_timeout_s,
        "notes": plan.notes,
        "problem": port.problem,
        "way_out": port.way_out,
        **port.traffic._asdict(),
        "failures_by_cause": port.failures_by_cause,
        "saved": port.saved,
        "refused": port.refused,
        "dropped_datagrams": port.dropped_datagrams,
        "evicted": port.evicted,
        "evicted_for_memory": port.evicted_for_memory,
        "shortages": port.shortages,
        "is_out_of_ports": port.is_out_of_ports,
        "is_out_of_client_ports": port.is_out_of_client_ports,
        "state": _state(judge(port)),
    }


def _state(state: PortState) -> dict[str, Any]:
    return {**_fields(state), "way_out": state.way_out, "code": state.code}


def _frontend(view: FrontendView) -> dict[str, Any]:
    return {
        "address": str(view.frontend.address),
        "kind": view.frontend.kind,
        "target": view.target,
        "is_reached": view.is_reached,
    }


def _endpoint(view: EndpointView) -> dict[str, Any]:
    return {
        "address": str(view.verdict.address),
        "state": view.verdict.reason,
        "is_usable": view.verdict.is_usable,
        "node": view.verdict.node,
        "ejected_for_s": view.ejected_for_s,
        "cause": view.cause,
        **view.traffic._asdict(),
        "failures_by_cause": view.failures_by_cause,
        "answered_at": view.answered_at,
    }


def _ignored(item: IgnoredService) -> dict[str, Any]:
    return {**_fields(item), "service": str(item.service)}


def _health_check(view: HealthCheckView) -> dict[str, Any]:
    return {
        **_fields(view.check),
        "service": str(view.check.service),
        "problem": view.problem,
    }


def _last_state(view: LastStateView, now: float) -> dict[str, Any]:
    return {**_fields(view), "age_s": view.age_s(now) if view.served_at else None}


def _client_address(view: ClientAddressView) -> dict[str, Any]:
    bridges = [
        {"name": bridge, "family": f"IPv{version}", "cause": cause, "hint": hint}
        for bridge, version, cause, hint in view.bridges
    ]
    return {**_fields(view), "bridges": bridges}


def _encode(value: object, *, indent: int | None = None) -> bytes:
    try:
        text = json.dumps(value, default=_plain, allow_nan=False, indent=indent)
    except ValueError:
        # JSON can't express infinity; that is rare, so only then is every value inspected.
        text = json.dumps(_finite(value), indent=indent)
    return text.encode() + b"\n"


def _plain(value: object) -> object:
    """Return a form of a value that JSON can express."""
    if is_dataclass(value) and not isinstance(value, type):
        return _fields(value)
    if isinstance(value, set | frozenset):
        return sorted(map(str, value))
    return str(value)


def _fields(value: DataclassInstance) -> dict[str, Any]:
    return {f.name: getattr(value, f.name) for f in fields(value)}


def _finite(value: object) -> object:
    match value:
        case float() if not math.isfinite(value):
            return None
        case dict():
            return {str(key): _finite(item) for key, item in value.items()}
        case list() | tuple():
            return [_finite(item) for item in value]
        case None | bool() | int() | float() | str():
            return value
    return _finite(_plain(value))
