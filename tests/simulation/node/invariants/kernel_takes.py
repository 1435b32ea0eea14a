"""The kernel refuses nothing that an agent writes, unless it is to, or another program has changed
the agent's tables: rules that it would refuse can't be in force.
"""

from __future__ import annotations

from ..kernel_of_node import words_of
from ..plan import DRIFT
from .base import Invariant


class KernelTakes(Invariant):
    """See the module."""

    NAME = "the kernel takes what is written"

    def refused(self, code: int) -> None:
        if not any(event.what == DRIFT for event in self._world.plan.events):
            self.check(not code, f"the kernel refuses a transaction: {words_of(code)}")

    def check_rest(self) -> None:
        self.check(self._world.kernel.has_rules(), "an agent serves, and has no rules")
