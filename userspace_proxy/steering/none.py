"""No steering: clients dial the listeners themselves, on loopback.

For embedding in a program or a test suite: no privilege, no rule, no route.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from ..model import Frontend
from .base import Bind, Steering, SteeringFacts, Target, Targets, merge_change, render_targets


class NoSteering(Steering):
    """Records what is applied, for the status page."""

    name = "none"
    bind = Bind.LOOPBACK

    def __init__(self, facts: SteeringFacts | None = None) -> None:
        self.facts = facts or SteeringFacts()
        self._targets: Targets | None = None

    async def start(self) -> Mapping[Frontend, int]:
        """Part of Steering; nothing outlives the process."""
        return {}

    async def apply(self, wanted: Mapping[Frontend, Target]) -> None:
        """Part of Steering."""
        self._targets = dict(wanted)

    async def change(self, changed: Mapping[Frontend, Target], gone: Collection[Frontend]) -> None:
        """Part of Steering."""
        merge_change(self._targets, changed, gone)

    async def render(self) -> str:
        """Part of Steering."""
        return render_targets(self._targets or {})

    async def repair(self) -> int:
        """Part of Steering; memory doesn't drift."""
        return 0

    async def clean_up(self) -> None:
        """Part of Steering."""
        self._targets = None

    async def close(self) -> None:
        """Part of Steering."""
