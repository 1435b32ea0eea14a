"""Which Service ports enter the kernel path now, and which of them wait for a later change.

    plan, probes ──KERNEL──▶ waiting, by namespace ──turns of so many elements──▶ kernel path
                              └── meanwhile: the userspace path

Rule 1: leaving never waits: clients may fail meanwhile.
Rule 2: a Service port that waits keeps its UDP flows on the kernel path, such as those of an
earlier run.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from ...model import DataPath
from ...plan.kernel_room import RULE_ELEMENTS, count_rules
from ...policy import PathDecision
from ...turns import Turns
from .served_port import ServedPort

TURN_ELEMENTS = 16_384
"""Elements that one change adds: 0.1 s. Far more at once would take four times as long for each.

A rule counts as RULE_ELEMENTS.
"""
WAITS = PathDecision(DataPath.USERSPACE, "it is about to enter the kernel path, in its turn")


class _Entering(NamedTuple):
    served: ServedPort
    wanted: PathDecision
    is_switch: bool


def _namespace_of(entry: _Entering) -> str:
    return entry.served.plan.key.name.namespace


class KernelTurns:
    """The Service ports of one proxy that are to enter the kernel path."""

    def __init__(self) -> None:
        self._turns = Turns[str]()
        self._waiting: dict[ServedPort, _Entering] = {}

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def choose(self, served: ServedPort, wanted: PathDecision, *, is_switch: bool = False) -> None:
        """Choose a path at once, or have a Service port enter the kernel path in its turn.

        Args:
            is_switch: Probes have chosen it.
        """
        self.forget(served)
        if wanted.path is DataPath.KERNEL and served.chosen.path is not DataPath.KERNEL:
            self._waiting[served] = _Entering(served, wanted, is_switch)
        else:
            served.choose_path(wanted)

    def forget(self, served: ServedPort) -> None:
        """Let a Service port wait no longer. Idempotent."""
        self._waiting.pop(served, None)

    def take(self) -> Iterator[tuple[ServedPort, bool]]:
        """Yield those that enter now, for which it is chosen, and whether probes have chosen it."""
        left = TURN_ELEMENTS
        waiting = self._waiting.values()
        for served, wanted, is_switch in self._turns.order(waiting, _namespace_of):
            self.forget(served)
            served.choose_path(wanted)
            yield served, is_switch
            choices = sum(len(choice.endpoints) for choice in served.choices())
            left -= choices * len(served.plan.frontends)
            serving = served.plan.serving
            has_affinity = serving.affinity_timeout_s is not None
            rules = count_rules(choices, serving.admits, has_affinity=has_affinity)
            left -= RULE_ELEMENTS * rules
            if left <= 0:
                break
        for served in self._waiting:
            served.was_in_kernel = True
            served.choose_path(WAITS)
