"""Renders the JSON of ``/api/v1/status``, ``/api/v1/plan`` and ``/configz``."""

from __future__ import annotations

import json
import math
from collections.abc import Collection
from dataclasses import fields, is_dataclass

import msgspec

from ..diagnosis.incidents import Incidents
from ..diagnosis.problems import summarise
from ..facts import Level, StatusFacts
from ..facts.encoding import encode_answer
from .selection import Selection, select


def render_status(
    view: StatusFacts,
    *,
    now: float,
    selection: Selection | None = None,
    whole: StatusFacts | None = None,
) -> bytes:
    """Return the facts as JSON, with the sentences of the page.

    Args:
        selection: The Service ports, ignored Services and health checks to include; None for all.
            The page number is ignored, and ``problems`` always covers all of ``view``.
        whole: The view from which ``view`` was selected; None if ``view`` is complete.
    """
    chosen = selection or Selection()
    return encode_answer(make_answer(view, now=now, selection=chosen, whole=whole))


def make_answer(
    view: StatusFacts, *, now: float, selection: Selection, whole: StatusFacts | None = None
) -> StatusFacts:
    """Return the answer that :func:`render_status` encodes."""
    chosen = select(view, selection)
    summary = summarise(view, now)
    known = Incidents(whole or view)
    incidents = known.all() if whole is None or whole is view else known.at(view.ports)
    last_state = view.last_state
    return msgspec.structs.replace(
        view,
        now=now,
        level=summary.level,
        verdict=summary.verdict,
        problems=summary.problems,
        incidents=incidents,
        last_state=msgspec.structs.replace(last_state, age_s=last_state.age_at(now)),
        ports=chosen.ports,
        ignored=chosen.ignored,
        health_checks=chosen.health_checks,
        served=sum(port.state.level is Level.OK for port in (whole or view).ports),
    )


def render_digests(view: StatusFacts, buckets: Collection[str] = ()) -> bytes:
    """Return the digests of Services as JSON.

    Args:
        buckets: The numbers of the requested buckets; empty for all.
    """
    wanted = (
        bucket
        for number, bucket in enumerate(view.digests)
        if not buckets or str(number) in buckets
    )
    digests = {service: digest for bucket in wanted for service, digest in bucket.items()}
    return encode_answer({"form": view.plan.form, "digests": digests})


def render_configz(view: StatusFacts) -> bytes:
    """Return the effective settings as JSON, each with its value and origin."""
    settings = {
        name: {"value": plain_setting(value), "origin": origin}
        for name, value, origin in sorted(view.config)
    }
    return json.dumps({"settings": settings}, indent=2).encode() + b"\n"


def plain_setting(value: object) -> object:
    """Convert a setting's value to one that JSON can express; infinity becomes null."""
    match value:
        case float() if not math.isfinite(value):
            return None
        case dict():
            return {str(key): plain_setting(item) for key, item in value.items()}
        case list() | tuple():
            return [plain_setting(item) for item in value]
        case set() | frozenset():
            return sorted(map(str, value))
        case None | bool() | int() | float() | str():
            return value
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain_setting(getattr(value, f.name)) for f in fields(value)}
    return str(value)
