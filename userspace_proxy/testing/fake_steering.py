"""Steering in memory: same contract, same text, no privileges."""

from __future__ import annotations

from collections.abc import Mapping

from ..errors import SteeringConflict
from ..model import Frontend
from ..steering import Bind, Steering, SteeringFacts, Target
from ..steering.base import render_targets


class FakeSteering(Steering):
    """A kernel that is a dictionary.

    Args:
        facts: As every steering takes them.
        taken: Frontends that another program steers already, and its name; looked up by each
            ``apply``.
        bind: Where its listeners stand.
        kernel: What is in force; give two fakes the same one to play a restart.
    """

    name = "fake"

    def __init__(
        self,
        facts: SteeringFacts | None = None,
        *,
        taken: Mapping[Frontend, str] | None = None,
        bind: Bind = Bind.PROXY_PORT,
        kernel: dict[Frontend, Target] | None = None,
    ) -> None:
        self.facts = facts or SteeringFacts()
        self.bind = bind
        self.kernel: dict[Frontend, Target] = {} if kernel is None else kernel
        """Change it to play drift."""
        self._taken = taken if taken is not None else {}
        self._wanted: dict[Frontend, Target] | None = None

    async def start(self) -> Mapping[Frontend, int]:
        """Part of Steering."""
        return {f: target for f, target in self.kernel.items() if isinstance(target, int)}

    async def apply(self, wanted: Mapping[Frontend, Target]) -> None:
        """Part of Steering."""
        for frontend in wanted:
            if owner := self._taken.get(frontend):
                raise SteeringConflict(
                    f"cannot steer {frontend}: already steered by {owner}",
                    hint="stop kube-proxy on this node or run with --steering=none",
                )
        self._wanted = dict(wanted)
        self._program(self._wanted)

    async def render(self) -> str:
        """Part of Steering."""
        return render_targets(self.kernel)

    async def repair(self) -> int:
        """Part of Steering."""
        if self._wanted is None:
            return 0
        frontends = self.kernel.keys() | self._wanted.keys()
        drifted = [f for f in frontends if self.kernel.get(f) != self._wanted.get(f)]
        self._program(self._wanted)
        return len(drifted)

    async def clean_up(self) -> None:
        """Part of Steering."""
        self._wanted = None
        self._program({})

    async def close(self) -> None:
        """Part of Steering."""

    def _program(self, targets: Mapping[Frontend, Target]) -> None:
        self.kernel.clear()
        self.kernel.update(targets)
