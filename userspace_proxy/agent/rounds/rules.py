"""Updates the steering rules of the served ports, and repairs them.

follow ──▶ differences ──▶ applied
                │ the kernel refuses: the old rules stay
                └──▶ next time: all rules
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from ...clocks import Clocks
from ...errors import SteeringError
from ...log_fields import FieldLogger
from ...log_limit import LogLimit
from ...logged_condition import LoggedCondition
from ...sources import Happening
from ...steering import Steering
from .changes import SyncCounters
from .served_port import ServedPort
from .served_ports import ServedPorts

_log = FieldLogger("userspace_proxy.agent")

# The maximum number of log lines about path switches per minute; the status page shows the path of
# each Service port.
_SWITCH_LINES = 20


class Rules:
    """Writes and repairs the rules that steer the frontends of one proxy's Service ports.

    Args:
        steering: The steering mechanism, which the caller has started.
        report: Called with events for users of the cluster.
    """

    def __init__(
        self,
        steering: Steering,
        served_ports: ServedPorts,
        counters: SyncCounters,
        report: Callable[[Happening], None],
    ) -> None:
        self._condition = LoggedCondition[str](
            _log,
            "cannot apply steering rules, so the kernel keeps its current rules: %(cause)s",
            "steering rules applied again",
            level=logging.ERROR,
        )
        self.has_drifted = False
        """Whether the last repair failed, so changes by other programs may remain."""
        self.are_in_force = False
        """Whether the last change succeeded, so that the next change can be incremental."""
        self.on_switch: Callable[[Sequence[ServedPort]], None] = lambda _ports: None
        """Called with the Service ports whose path was changed by probes."""
        self._steering = steering
        self._steered = served_ports.steered
        self._counters = counters
        self._report = report
        self._has_steered = False
        """Whether rules have been applied, which may require repair."""
        self._switch_lines = LogLimit(_SWITCH_LINES)

    @property
    def problem(self) -> str:
        """Why the kernel's rules differ from the plan; empty if they don't."""
        return str(self._condition)

    async def follow(self) -> bool:
        """Steer the frontends of the served ports to their listeners, or to endpoints.

        Returns:
            Whether steering succeeded; otherwise, call this method again.

        Raises:
            SteeringError: The kernel lacks a feature that the first rules require.
        """
        change = self._steered.change()
        if change or not self.are_in_force:
            try:
                if self.are_in_force:
                    # An incremental change leaves rules that have drifted to the next repair.
                    await self._steering.change(change.changed, change.gone)
                else:
                    await self._steering.apply(self._steered.targets())
                    self._note_recovery()
            except SteeringError as exc:
                self._counters.partial_failures += self.are_in_force
                self.are_in_force = False
                self._note_failure(exc)
                if exc.is_lasting and not self._has_steered:
                    raise
                return False
            self._has_steered = self.are_in_force = True
        switched = self._steered.mark(change)
        self._steered.note_unsteered(self._steering.unsteered)
        self._note_switches(switched)
        return True

    async def forget_stale(self) -> None:
        await self._steering.forget_stale()

    async def repair(self) -> None:
        """Undo other programs' changes to the applied rules, and report the result."""
        if not self._has_steered:
            return
        name = self._steering.name
        try:
            count = await self._steering.repair()
        except SteeringError as exc:
            if not self.has_drifted:
                what = f"rules of {name} steering may differ from the plan and can't be repaired"
                note = f"{what}: {exc}"
                self._report(Happening("SteeringDrifted", "Repair", note))
            self.has_drifted = True
            self._note_failure(exc)
            return
        self._note_recovery()
        self._steered.note_unsteered(self._steering.unsteered)
        if count:
            self._counters.repairs += count
            self._counters.repaired_at = (*self._counters.repaired_at[-59:], Clocks.monotonic())
            _log.warning(
                "repaired steering rules that another program had changed", extra={"rules": count}
            )
            what = "1 rule or frontend" if count == 1 else f"{count} rules and frontends"
            note = f"{what} of {name} steering had been changed by another program; repaired"
            self._report(Happening("SteeringRepaired", "Repair", note))

    def _note_switches(self, switched: Sequence[ServedPort]) -> None:
        for served in switched:
            if not self._switch_lines.take(Clocks.monotonic()):
                break
            path = served.path
            fields = {"service": served.group.label, "path": str(path.now), "cause": path.why}
            _log.info("%(service)s: switched to data path %(path)s: %(cause)s", extra=fields)
        if switched:
            self.on_switch(switched)

    def _note_failure(self, exc: SteeringError) -> None:
        self._counters.failures += 1
        self._condition.set(str(exc))

    def _note_recovery(self) -> None:
        self.has_drifted = False
        self._condition.clear()
