"""What `/healthz` and `/livez` of an agent answer, and what its status shows of refused rules.

Rule 1: a node to which clients may be sent has rules of an agent that serves, and a worker.
Rule 2: an agent never asks for a restart: nothing that is drawn makes its loop hang.
Rule 3: what the kernel has refused is a problem until it takes it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from userspace_proxy.facts import StatusFacts
from userspace_proxy.status.health import answer_healthz, answer_livez

from ..control.files import WORKER
from ..control.machine import Process

if TYPE_CHECKING:
    from .agents import AgentRun
    from .world import World

HEALTHZ, LIVEZ, SHOWN = "answers to /healthz", "answers to /livez", "refused rules are shown"
ORACLES = (HEALTHZ, LIVEZ, SHOWN)

_LOOK_S = 1.0
# An agent has a worker's first message, or learns of its end, in that time.
_TOLD_S = 0.2
# For a worker in the place of one that has died, also of the third in a row.
_SERVES_AGAIN_S = 2.0
# Changes are late from a minute on; nothing waits at rest.
_LATER_S = 3600.0
_LATE_S = 61.0
_OTHER_CAUSES = {"drift", "what lacks", "outside", "restarts", "crowd", "clock jumps"}
"""What else has rules written."""


class HealthAnswers:
    """The answers of one run's agents."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._look_at = 0.0
        self._died_at = float("-inf")
        """When a worker last died."""

    def dying(self, process: Process) -> None:
        """Follow a death."""
        if process.kind == WORKER:
            self._died_at = self._world.timeline.now

    def look(self) -> None:
        """Ask the agent from time to time, as a load balancer and the kubelet do."""
        world, now = self._world, self._world.timeline.now
        if now < self._look_at:
            return
        self._look_at = now + _LOOK_S
        run = world.agent
        if run is None or run.agent is None or not run.is_started:
            return
        # A process that is stopped answers nothing.
        if run.process.loop.held_until > now - _TOLD_S:
            return
        with run.process:
            facts = run.agent._facts()
        judgements = world.judgements
        judgements.check(LIVEZ, answer_livez(facts, world.unix()).status == 200, "it isn't alive")
        answer = answer_healthz(facts, world.unix()).status
        has_workers = any(p.parent is run.process for p in world.machine.alive(WORKER))
        if run.is_ending:
            # Also one whose first round is in force only now.
            is_right = answer == 503 or now - run.ends_since <= _TOLD_S
            judgements.check(HEALTHZ, is_right, f"{answer}, and the agent ends")
        elif not world.checks.hand_overs.has_served(run):
            judgements.check(HEALTHZ, answer == 503, f"{answer}, and the agent doesn't serve yet")
        elif not has_workers and now - self._died_at > _TOLD_S:
            judgements.check(HEALTHZ, answer == 503, f"{answer}, and no worker runs")
        elif world.freshness.is_calm and has_workers and now - self._died_at > _SERVES_AGAIN_S:
            judgements.check(HEALTHZ, answer == 200, f"{answer}, and nothing is wrong")
        self._check_shown(run, facts)

    def _check_shown(self, run: AgentRun, facts: StatusFacts) -> None:
        if self._world.table.refused_last is run.process and not run.is_ending:
            what = "the kernel has refused the last change, and the status shows no problem"
            self._world.judgements.check(SHOWN, bool(facts.steering.problem), what)
            if self._waits_for_rules:
                later, check = self._world.unix() + _LATE_S, self._world.judgements.check
                answer = answer_healthz(facts, later).status
                what = f"{answer} a minute after the kernel has refused a change"
                check(HEALTHZ, answer == 503, what)
                check(LIVEZ, answer_livez(facts, later).status == 200, "a change waits")

    @property
    def _waits_for_rules(self) -> bool:
        """Whether what the kernel has refused can only be a change of the cluster."""
        return _OTHER_CAUSES.isdisjoint(self._world.plan.features)

    def check_rest(self) -> None:
        """Judge what an agent answers later if nothing happens any more."""
        world, run = self._world, self._world.agent
        if world.machine.violations or run is None or run.agent is None:
            return
        with run.process:
            facts = run.agent._facts()
        for later_s in (0.0, _LATER_S):
            answer = answer_healthz(facts, world.unix() + later_s).status
            what = f"{answer} {later_s:g} s later, and nothing waits"
            world.judgements.check(HEALTHZ, answer == 200, what)
