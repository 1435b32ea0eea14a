"""Steering in memory: same contract, same text, no privileges."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from ..errors import SteeringConflict
from ..model import Frontend
from ..steering import Bind, Steering, SteeringFacts, Target
from ..steering.base import Targets, merge_change, nothing_applied, render_targets


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
        self.programmed = 0
        """How many frontends ``apply`` and ``change`` were told of, all calls together."""
        self._taken = taken if taken is not None else {}
        self._wanted: Targets | None = None

    async def start(self) -> Mapping[Frontend, int]:
        """Part of Steering."""
        return {f: target for f, target in self.kernel.items() if isinstance(target, int)}

    async def apply(self, wanted: Mapping[Frontend, Target]) -> None:
        """Part of Steering."""
        self._must_be_free(wanted)
        self._wanted = dict(wanted)
        self.programmed += len(wanted)
        self._program(self._wanted)

    async def change(self, changed: Mapping[Frontend, Target], gone: Collection[Frontend]) -> None:
        """Part of Steering."""
        if self._wanted is None:
            raise nothing_applied()
        self._must_be_free(changed)
        merge_change(self._wanted, changed, gone)
        merge_change(self.kernel, changed, gone)
        self.programmed += len(changed.keys() | gone)

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

    def _must_be_free(self, frontends: Iterable[Frontend]) -> None:
        for frontend in frontends:
            if owner := self._taken.get(frontend):
                raise SteeringConflict(
                    f"cannot steer {frontend}: already steered by {owner}",
                    hint="stop kube-proxy on this node or run with --steering=none",
                )

    def _program(self, targets: Mapping[Frontend, Target]) -> None:
        self.kernel.clear()
        self.kernel.update(targets)
