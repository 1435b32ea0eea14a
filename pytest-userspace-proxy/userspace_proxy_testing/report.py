"""What the report of a failing test shows of its Services."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Protocol

from userspace_proxy.facts import StatusFacts
from userspace_proxy.status.text import render_text

from .served_service import ServedService

SHOWN = 10
"""Connections of each Service."""


class Reported(Protocol):
    """The Services of a test."""

    @property
    def services(self) -> Sequence[ServedService]:
        """In the order of their creation."""

    def status(self) -> StatusFacts:
        """Return everything about their proxy."""


def describe(services: Reported) -> str:
    """Return the Services with causes, their backends, and their last connections as text."""
    status = render_text(services.status(), now=time.time(), has_node=False).body.decode()
    parts = [status.rstrip()]
    for service in services.services:
        backends = ", ".join(
            f"{b.name} at {b.address}{b.state and f' ({b.state})'}" for b in service.backends
        )
        parts.append(f"{service.key}: backends {backends or 'none'}")
        used = {e.address for port in service.views() for e in port.endpoints}
        if used != {str(backend.address) for backend in service.backends}:
            parts.append(f"  endpoints: {', '.join(sorted(used)) or 'none'}")
        parts += [f"  fault: {name}: {', '.join(words)}" for name, words in service.faults.items()]
        decisions = service.decisions[-SHOWN:]
        parts += [f"  {decision}" for decision in decisions]
        if not decisions:
            parts.append("  no connection has ended")
    return "\n".join(parts)
