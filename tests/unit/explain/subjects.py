"""Builds Services to explain, as in a proxy's JSON."""

from __future__ import annotations

import errno
import os
from typing import Any

from tests.unit.status.views import NOW, make_address, make_endpoint, make_port, make_view, replace
from userspace_proxy.causes.endpoints import dial_failed
from userspace_proxy.diagnosis.judge import diagnose
from userspace_proxy.explain import read_subject
from userspace_proxy.explain.explanation import Subject
from userspace_proxy.facts import EndpointFacts, PortFacts
from userspace_proxy.facts.encoding import read_answer
from userspace_proxy.model import Failure
from userspace_proxy.status.answers import render_status


def make_subject(
    *ports: PortFacts, service: str = "shop/web", is_live: bool = True, **changes: Any
) -> Subject:
    """Return the facts about a Service, by default with one served port."""
    view = make_view(*(ports or (make_port(),)), **changes)
    view.ports = diagnose(view.ports, view.source, view.health_checks)
    status = read_answer(render_status(view, now=NOW))
    return read_subject(status, service, "the proxy at 127.0.0.1:10249", is_live=is_live)


def make_dead_endpoint(address: str, **changes: Any) -> EndpointFacts:
    """Return an endpoint that refused two dials, the last one three seconds ago."""
    number = errno.ECONNREFUSED
    cause = replace(
        dial_failed(make_address(address), Failure.REFUSED, os.strerror(number)),
        count=2,
        last_at=NOW - 3,
    )
    return replace(make_endpoint(address, ejected_for_s=4.0, **changes), cause=cause)
