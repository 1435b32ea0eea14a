"""What the agent is made of: components, each one thing that starts, shows facts and closes.

Agent ──a list of components──▶ start, in its order ▶ show, refresh ▶ close, in reverse
"""

from __future__ import annotations

from dataclasses import dataclass

from ...facts import StatusFacts
from ...model import SocketAddress
from .tasks import Supervisor


class Component:
    """One thing that runs in the agent; a class overrides what it needs.

    What is a problem follows from the facts (``diagnosis.problems``), for those who read them as
    JSON, too.
    """

    async def start(self, supervisor: Supervisor) -> None:
        """Begin; a supervisor runs what goes on in the background, and ends it before `close`."""

    def show(self, facts: StatusFacts) -> None:
        """Fill in the facts about it; also asked before the start and after the end."""

    async def refresh(self) -> None:
        """Bring up to date what it shows, before an answer that contains counters."""

    async def close(self) -> None:
        """End; also after a start that failed."""


@dataclass(slots=True)
class OwnAddresses:
    """Where the servers of a proxy itself answer; None: nowhere, or not yet."""

    admin: tuple[str, int] | None = None
    """The page."""
    health: tuple[str, int] | None = None
    """``/healthz``."""
    dns: SocketAddress | None = None
    """Names of Services."""
