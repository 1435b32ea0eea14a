"""The kernel accepts all that an agent writes.

Exceptions: the plan makes it refuse a transaction, or another program has changed the agent's
tables.
"""

from __future__ import annotations

from ..kernel_of_node import words_of
from ..plan import DRIFT
from .base import Invariant


class KernelTakes(Invariant):
    """Judges refused transactions, as the module describes."""

    NAME = "the kernel takes what is written"

    def refused(self, code: int) -> None:
        if not any(event.what == DRIFT for event in self._world.plan.events):
            self.check(not code, f"the kernel refuses a transaction: {words_of(code)}")

    def check_rest(self) -> None:
        self.check(self._world.kernel.has_rules(), "an agent serves, and has no rules")
