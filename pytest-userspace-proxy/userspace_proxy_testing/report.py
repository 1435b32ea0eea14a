"""Describes a failed test's Services for its report."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from userspace_proxy.clocks import Clocks
from userspace_proxy.facts import StatusFacts
from userspace_proxy.facts.units import plural
from userspace_proxy.status.text import render_text

from .served_service import ServedService

SHOWN = 10
"""The maximum number of shown connections per Service, and of shown requests per backend."""


class Reported(Protocol):
    """A test's Services."""

    @property
    def services(self) -> Sequence[ServedService]:
        """The Services, in order of creation."""

    def status(self) -> StatusFacts:
        """Return the status of the Services' proxy."""


def describe(services: Reported) -> str:
    """Return the Services with causes, backends and last connections as text."""
    status = render_text(services.status(), now=Clocks.time(), has_node=False).body.decode()
    parts = [status.rstrip()]
    for service in services.services:
        backends = ", ".join(
            f"{b.name} at {b.address}{b.state and f' ({b.state})'}" for b in service.backends
        )
        parts.append(f"{service.key}: backends {backends or 'none'}")
        used = {e.address for port in service.views() for e in port.endpoints}
        if used != {str(backend.address) for backend in service.backends}:
            parts.append(f"  endpoints: {', '.join(sorted(used)) or 'none'}")
        parts.append(f"  clients dial {_address(service)}")
        parts += [f"  fault: {name}: {', '.join(words)}" for name, words in service.faults.items()]
        parts += _open(service)
        decisions = service.decisions[-SHOWN:]
        parts += [f"  {decision}" for decision in decisions]
        if not decisions:
            parts.append("  no connection has ended")
        parts += _seen(service)
    return "\n".join(parts)


def _address(service: ServedService) -> str:
    """Return the address that clients dial, or ``nothing:`` and why there is none."""
    try:
        return str(service.address)
    except LookupError as exc:
        return f"nothing: {exc}"


def _open(service: ServedService) -> Iterator[str]:
    names = {str(backend.address): backend.name for backend in service.backends}
    for port in service.views():
        if port.active:
            noun = "flow" if port.protocol == "UDP" else "connection"
            each = ", ".join(
                f"{endpoint.active:,} to {names.get(endpoint.address, endpoint.address)}"
                for endpoint in port.endpoints
                if endpoint.active
            )
            yield f"  still open: {plural(port.active, noun)}{each and f': {each}'}"


def _seen(service: ServedService) -> Iterator[str]:
    for backend in service.backends:
        requests = list(backend.requests)
        if requests:
            more = f" after {len(requests) - SHOWN} others" if len(requests) > SHOWN else ""
            yield f"  {backend.name} saw{more}: {', '.join(map(str, requests[-SHOWN:]))}"
