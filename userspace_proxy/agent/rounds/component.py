"""Defines the component, the agent's building block: it starts, shows facts and closes.

Agent ──a list of components──▶ start, in its order ▶ show, refresh ▶ close, in reverse
"""

from __future__ import annotations

from dataclasses import dataclass

from ...facts import StatusFacts
from ...model import SocketAddress
from .tasks import Supervisor


class Component:
    """A component of the agent; subclasses override methods as needed.

    Problems are derived from the facts (``diagnosis.problems``), so readers of the JSON see the
    same problems.
    """

    async def start(self, supervisor: Supervisor) -> None:
        """Start; the supervisor runs background tasks, and cancels them before ``close``."""

    def show(self, facts: StatusFacts) -> None:
        """Fill in the component's facts; also called before start and after close."""

    async def refresh(self) -> None:
        """Update the component's counters; called before each answer that contains counters."""

    async def close(self) -> None:
        """Stop, and release all resources; also called after a failed :meth:`start`."""


@dataclass(slots=True)
class OwnAddresses:
    """The addresses of a proxy's own servers; None for a server that isn't open."""

    admin: tuple[str, int] | None = None
    """The address of the status page."""
    health: tuple[str, int] | None = None
    """The address of ``/healthz``."""
    dns: SocketAddress | None = None
    """The address of the DNS server for Services."""
