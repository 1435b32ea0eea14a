"""In-memory steering with the contract and text of real steering, without privileges."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from userspace_proxy.errors import SteeringConflict, SteeringError
from userspace_proxy.model import Frontend
from userspace_proxy.steering import Bind, Steering, SteeringFacts, Target
from userspace_proxy.steering.base import Targets, merge_change, nothing_applied, render_targets


class FakeSteering(Steering):
    """Steering whose kernel is a dictionary.

    Args:
        taken: Frontends that another program steers, with the program's name: ``unsteered`` lists
            them. Each ``apply``, ``change`` and ``repair`` reads them.
        kernel: The applied state; a second fake with the same state simulates a restart.
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
        """The applied state; a test may change it to simulate drift."""
        self.programmed = 0
        """The number of frontends in all calls of ``apply`` and ``change``."""
        self.fails_with: SteeringError | None = None
        """The error that ``apply``, ``change`` and ``kernel_connections`` raise without changing
        anything; None if they succeed."""
        self.counted: Mapping[Frontend, int] | None = None
        """The result of ``kernel_connections``."""
        self._taken = taken if taken is not None else {}
        self._wanted: Targets | None = None

    async def start(self) -> Mapping[Frontend, int]:
        return {f: t if isinstance(t, int) else 0 for f, t in self.kernel.items()}

    async def apply(self, wanted: Mapping[Frontend, Target]) -> None:
        self._may_fail()
        self._wanted = dict(wanted)
        self.programmed += len(wanted)
        self._program()

    async def change(self, changed: Mapping[Frontend, Target], gone: Collection[Frontend]) -> None:
        if self._wanted is None:
            raise nothing_applied()
        self._may_fail()
        merge_change(self._wanted, changed, gone)
        merge_change(self.kernel, changed, gone)
        self._leave_out_taken()
        self.programmed += len(changed.keys() | gone)

    async def render(self) -> str:
        return render_targets(self.kernel)

    async def kernel_connections(self) -> Mapping[Frontend, int] | None:
        self._may_fail()
        return self.counted

    async def repair(self) -> int:
        if self._wanted is None:
            return 0
        frontends = (self.kernel.keys() | self._wanted.keys()) - self.unsteered.keys()
        drifted = [f for f in frontends if self.kernel.get(f) != self._wanted.get(f)]
        self._program()
        return len(drifted)

    async def clean_up(self) -> None:
        self._wanted = None
        self._program()

    async def close(self) -> None:
        """Do nothing."""

    def _may_fail(self) -> None:
        if self.fails_with is not None:
            raise self.fails_with

    def _program(self) -> None:
        self.kernel.clear()
        self.kernel.update(self._wanted or {})
        self._leave_out_taken()

    def _leave_out_taken(self) -> None:
        wanted = self._wanted or {}
        self.unsteered = {
            frontend: str(
                SteeringConflict(
                    f"cannot steer {frontend}: already steered by {owner}",
                    hint="stop kube-proxy on this node or run with --steering=none",
                )
            )
            for frontend, owner in self._taken.items()
            if frontend in wanted
        }
        for frontend in self.unsteered:
            self.kernel.pop(frontend, None)
