"""Chooses the Service ports that enter the kernel path now; others wait for a later change.

    plan, probes ──KERNEL──▶ waiting, by namespace ──turns of TURN_ELEMENTS──▶ kernel path
                              └── meanwhile: the userspace path

Rule 1: a Service port leaves the kernel path without waiting, because its clients may be failing.
Rule 2: UDP flows of a waiting Service port, also of an earlier run, stay on the kernel path.
"""

from __future__ import annotations

from collections.abc import Iterator

from ...model import DataPath
from ...plan.kernel_room import count_elements, count_rules
from ...policy import PathDecision
from ...turns import Turns
from .served_port import ServedPort

TURN_ELEMENTS = 4_096
"""Once a change has added this many elements, which takes 30 ms, it adds no further Service port;
the other ports wait for a later change."""
WAITS = PathDecision(DataPath.USERSPACE, "it is about to enter the kernel path, in its turn")


class KernelTurns:
    """The Service ports of one proxy that should move to the kernel path."""

    def __init__(self) -> None:
        self._turns = Turns[str]()
        self.waiting: dict[ServedPort, tuple[PathDecision, bool]] = {}
        """The queued ports, each with its wanted path, and whether probes have chosen the path."""

    def choose(self, served: ServedPort, wanted: PathDecision, *, is_switch: bool = False) -> None:
        """Set a Service port's path, or queue the port for its turn to enter the kernel path."""
        self.forget(served)
        if wanted.path is DataPath.KERNEL and served.chosen.path is not DataPath.KERNEL:
            self.waiting[served] = wanted, is_switch
        else:
            served.choose_path(wanted)

    def forget(self, served: ServedPort) -> None:
        """Remove a Service port from the queue. Idempotent."""
        self.waiting.pop(served, None)

    def take(self, *, may_enter: bool) -> Iterator[tuple[ServedPort, bool]]:
        """Move the next ports to the kernel path; yield each, and whether probes chose its path.

        The remaining ports (all of them without ``may_enter``) are marked as waiting.
        """
        left, waiting = TURN_ELEMENTS, tuple(self.waiting) if may_enter else ()
        for served in self._turns.order(waiting, lambda one: one.plan.key.name.namespace):
            wanted, is_switch = self.waiting.pop(served)
            served.choose_path(wanted)
            yield served, is_switch
            choices, serving = served.choices(), served.plan.serving
            endpoints = sum(len(choice.endpoints) for choice in choices)
            has_affinity = serving.affinity_timeout_s is not None
            rules = count_rules(endpoints, serving.admits, has_affinity=has_affinity)
            left -= count_elements(endpoints, len(served.plan.frontends), rules)
            if left <= 0:
                break
        for served in self.waiting:
            served.was_in_kernel = True
            served.choose_path(WAITS)
