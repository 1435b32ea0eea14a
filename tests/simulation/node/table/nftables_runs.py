"""Runs that steer by nftables: their steps, and what is in force after each.

    step ─▶ NftablesSteering ─▶ returned: as wanted; raised: as before

Rule 1: a step that fails has a reason: the kernel, another program, or a doubt about what was in
force.
Rule 2: where the process dies within a step, the next one has begun when that step returns.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple

from userspace_proxy.errors import SteeringError
from userspace_proxy.model import Frontend
from userspace_proxy.steering.base import Target

from ...judgements import Judgements
from ..nf_tables_state import INET
from . import plan as p
from .node import Attempts, Machine
from .oracles import Oracles
from .pictures import Drifted
from .plan import Step
from .takers import TABLE

FORWARDING = {"IPv4": "ipv4/ip_forward", "IPv6": "ipv6/conf/all/forwarding"}
"""By a family, the sysctl without which the node forwards nothing to endpoints."""
Targets = dict[Frontend, Target]
Action = Callable[[], Coroutine[Any, Any, Any]]


class Done(NamedTuple):
    """How a step of the product has ended."""

    result: Any
    error: SteeringError | None
    failures: int
    """How many of the failures that were to come have come."""


Do = Callable[[str, Action, Attempts, Callable[[], object]], Done | None]


class NftablesRuns:
    """What is known of the runs of one plan that steer by ``nftables``.

    Args:
        do: Runs a step of the product, and notes what its transactions do. If the process dies, it
            calls the last argument, begins the next process, and returns None.
    """

    def __init__(self, node: Machine, judgements: Judgements, oracles: Oracles, do: Do) -> None:
        self._node = node
        self._judgements = judgements
        self._oracles = oracles
        self._do = do
        self.applied: Targets = {}
        """What is in force, as far as the product has confirmed it."""
        self.is_applied = False
        """Whether this process has applied anything."""
        self.changed_by_others = False
        """Whether another program has changed something of it within the last step."""
        self._may_be_anew: dict[str, str] = {}
        self._answers_lost = 0

    def call(self, what: str, call: Action, new: Targets | None = None) -> tuple[Any, bool]:
        """Run a step; return its result, or what it raised, and whether it is without error.

        Args:
            new: The targets that it is to bring into force.
        """
        node, oracles = self._node, self._oracles
        attempts = Attempts(dict(self._may_be_anew))
        self.changed_by_others = False
        node.another.note_chains()
        oracles.begin(self.applied, self.applied if new is None else new)
        lost, was_sure = node.tables.answers_lost, oracles.is_sure
        events_lost = node.kernel.events_lost
        of_tracking = node.tracking_faults - node.injected_tracking
        done = self._do(what, call, attempts, lambda: oracles.died(attempts))
        if done is None:
            return None, False
        if done.error is not None:
            has_reason = bool(done.failures or self.changed_by_others or attempts.refused)
            has_reason = has_reason or not was_sure or node.node.sends_in_parts
            self._judgements.check(
                "no failure without a reason", has_reason, f"{what} raised: {done.error}"
            )
            oracles.refused()
        if attempts.refused:
            oracles.lose_events()
        # After a second failure its undoing may be in force in part, or not at all.
        is_undone = not attempts.is_unknown and done.failures < 2
        if done.error is not None and not is_undone:
            oracles.doubt("a refused undoing")
        oracles.has_lost_now = node.kernel.events_lost != events_lost
        if node.tables.answers_lost != lost:
            self._answers_lost = node.tables.answers_lost
            oracles.doubt("a lost answer")
        if self.changed_by_others:
            # Also of what was put right within this step.
            oracles.still_drifted()
            why = "changed while its rules were read"
            self._may_be_anew |= dict.fromkeys(attempts.redefined, why)
        attempts.redefine(set(), node.tables.queries_refused)
        self._may_be_anew |= dict.fromkeys(attempts.unread, "its rules couldn't be read")
        oracles.has_failed = done.failures != 0
        now = node.tracking_faults - node.injected_tracking
        oracles.has_failed_tracking = now != of_tracking
        return (done.result, True) if done.error is None else (done.error, False)

    def note_lost_answer(self) -> None:
        """Note whether the answer to an earlier transaction of this step was lost."""
        if self._node.tables.answers_lost != self._answers_lost:
            # What follows puts right what the product can't know.
            self._answers_lost = self._node.tables.answers_lost
            self._oracles.doubt("a lost answer")

    def note_drift(self, drifted: Drifted) -> None:
        """Note that another program has changed something of it."""
        self.changed_by_others = True
        self._oracles.drifted(drifted)

    def step(self, step: Step) -> None:
        """Carry a step of the product out."""
        match step.kind:
            case p.APPLY:
                self.apply(dict(step.targets))
            case p.CHANGE:
                self.change(step)
            case p.REPAIR:
                self.repair()
            case p.FORGET:
                self._forget()
            case p.COUNT:
                self._count()
            case _:
                raise AssertionError(step.kind)

    def begin(self) -> None:
        """Begin a process: start the product, until it succeeds."""
        for _ in range(8):
            recovered, is_done = self.call("start", self._node.steering.start)
            if is_done:
                self._oracles.recovered(recovered, self.applied)
                break
        self.is_applied = False

    def close(self) -> None:
        """Have the process end orderly."""
        self.call("close", self._node.steering.close)
        self._oracles.closed()

    def apply(self, targets: Targets) -> None:
        """Apply targets; the first time of a process, that is what it begins with."""
        before = self.applied
        was_first = not self.is_applied
        steering = self._node.steering
        _, is_done = self.call("apply", lambda: steering.apply(targets), targets)
        if self._node.steering is not steering:
            return
        if is_done:
            self.applied, self.is_applied = dict(targets), True
            if was_first:
                self._oracles.begin_counts()
            if was_first and not self.changed_by_others:
                self._oracles.settled()
        elif was_first:
            # The kernel path's table is in force already.
            self._oracles.doubt("a refused first apply")
        self._look(before, is_forgotten=is_done)

    def change(self, step: Step) -> None:
        """Change some targets; a process that has applied nothing yet applies the result."""
        before, changed, gone = self.applied, dict(step.targets), step.gone
        new = {f: t for f, t in before.items() if f not in gone} | changed
        if not self.is_applied:
            self.apply(new)
            return
        steering = self._node.steering
        _, is_done = self.call("change", lambda: steering.change(changed, gone), new)
        if self._node.steering is not steering:
            return
        if is_done:
            self.applied = new
        self._look(before, is_forgotten=False)

    def repair(self) -> None:
        """Repair; judge what it says besides, where nothing has disturbed it."""
        steering = self._node.steering
        oracles = self._oracles
        was_right = oracles.is_sure and not oracles.links.changed and not oracles.has_lost
        was_right = was_right and not self._may_be_anew
        count, is_done = self.call("repair", steering.repair)
        if self._node.steering is not steering:
            return
        if not is_done:
            oracles.round_broken_off()
        if is_done and self.is_applied:
            was_disturbed = self.changed_by_others or oracles.has_failed
            if was_right and not was_disturbed:
                oracles.repaired_nothing(count)
            if not was_disturbed:
                oracles.settled()
                self._may_be_anew.clear()
            oracles.round_over()
            self._look_at_forwarding()
            if (INET, TABLE) not in self._node.tables.ruleset.tables:
                # Another program may have flushed all rules.
                oracles.taker = None
            if not was_disturbed:
                oracles.told(steering.unsteered, self.applied)
        self._look(self.applied, is_forgotten=is_done and self.is_applied)

    def clean_up(self) -> bool:
        """Have the process remove all of it; return whether it has."""
        steering, oracles = self._node.steering, self._oracles
        oracles.may_remove = True
        _, is_done = self.call("clean_up", steering.clean_up, {})
        oracles.may_remove = False
        if is_done:
            self.gone(is_sure=not self.changed_by_others)
        elif self._node.steering is steering:
            oracles.doubt("a refused clean_up")
        return is_done

    def gone(self, *, is_sure: bool = True) -> None:
        """Note that all of it has been removed.

        Args:
            is_sure: Whether nothing of it has come back since.
        """
        before, self.applied, self.is_applied = self.applied, {}, False
        if is_sure:
            self._oracles.cleaned_up()
            self._oracles.look_at_flows(before, {}, is_forgotten=True)
        self._oracles.forgotten()

    @property
    def left(self) -> list[str]:
        """What of such a run is in the kernel."""
        return [one.name for one in self._node.own_tables if "/local" not in one.name]

    def finish(self) -> None:
        """Judge that all is right soon after nothing fails any more."""
        if not self.is_applied:
            self.apply(dict(self.applied))
        for _ in range(2):
            self._node.now += 1.0
            self.repair()
        if not self._judgements.violations:
            self._oracles.is_sure = True
            self._look(self.applied, is_forgotten=True)
            # Once more, after which no port is guarded that isn't used.
            self.repair()
            self._oracles.look_at_all_guards()

    def _forget(self) -> None:
        if not self.is_applied:
            return
        steering = self._node.steering
        self.call("forget_stale", steering.forget_stale)
        if self._node.steering is steering:
            self._look(self.applied, is_forgotten=True)

    def _count(self) -> None:
        steering = self._node.steering
        lacked = self._node.tables.lacked
        found, is_done = self.call("kernel_connections", steering.kernel_connections)
        is_counting = is_done and self.is_applied and not self._oracles.has_failed
        # A listing of counters is read once, and may lack some.
        is_counting = is_counting and lacked == self._node.tables.lacked
        if is_counting and self._node.steering is steering:
            self._oracles.counted(found, self.applied)
        if self._node.steering is not steering:
            return
        text, is_done = self.call("render", steering.render)
        if is_done and self._node.steering is steering and not self._oracles.has_failed:
            self._oracles.rendered(text, self.applied)

    def _look(self, before: Targets, *, is_forgotten: bool) -> None:
        """Judge where all frontends lead, and what became of the flows."""
        self._oracles.look(self.applied)
        self._oracles.look_at_flows(before, self.applied, is_forgotten=is_forgotten)

    def _look_at_forwarding(self) -> None:
        """Judge for which families the product says that the node doesn't forward."""
        zeros = self._node.sysctls.zeros
        off = {family for family, setting in FORWARDING.items() if setting in zeros}
        found = set(map(str, self._node.steering.no_kernel_path))
        self._judgements.check("forwarding", found == off, f"no kernel path for {found}, not {off}")
