"""What `/healthz` and `/livez` of an agent answer, and what its status shows of refused rules.

Rule 1: a node to which clients may be sent has rules of an agent that serves, and a worker; no
change has waited for a minute, and its Node stays. Whatever fails beside doesn't matter.
Rule 2: an agent never asks for a restart: nothing that is drawn makes its loop hang.
Rule 3: what the kernel has refused is a problem until it takes it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from userspace_proxy.facts import StatusFacts
from userspace_proxy.status.health import answer_healthz, answer_livez

from ..control.files import WORKER
from ..control.machine import Process
from .plan import NODE
from .readings import is_leaving
from .state_checks import check_source

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


class HealthAnswers:
    """The answers of one run's agents."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._look_at = 0.0
        self._died_at = float("-inf")
        """When a worker last died."""
        self._workers: dict[Process, float] = {}
        """Those that live, since when they were seen, or went on after a stop that came soon."""

    def dying(self, process: Process) -> None:
        """Follow a death."""
        if process.kind == WORKER:
            self._died_at = self._world.timeline.now

    def look(self) -> None:
        """Ask the agent from time to time, as a load balancer and the kubelet do."""
        if self._world.timeline.now >= self._look_at:
            self.ask()

    def look_soon(self) -> None:
        """Ask the agent the next time."""
        self._look_at = 0.0

    def ask(self) -> None:
        """Ask the agent."""
        world, now = self._world, self._world.timeline.now
        self._look_at = now + _LOOK_S
        run = world.agent
        if run is None or run.agent is None or not run.is_started:
            return
        # A process that is stopped answers nothing.
        if run.process.loop.held_until > now - _TOLD_S:
            return
        with run.process:
            facts = run.agent._facts()
        if not run.is_ending:
            world.reports.judge(run, facts)
            world.last_states.check_said(run, facts)
            check_source(world, run, facts)
        judgements = world.judgements
        judgements.check(LIVEZ, answer_livez(facts, world.unix()).status == 200, "it isn't alive")
        answer = answer_healthz(facts, world.unix()).status
        alive = [p for p in world.machine.alive(WORKER) if p.parent is run.process]
        has_workers = bool(alive)
        self._workers = {worker: self._serves_since(worker) for worker in alive}
        if run.is_ending:
            # Also one whose first round is in force only now.
            is_right = answer == 503 or now - run.ends_since <= _TOLD_S
            judgements.check(HEALTHZ, is_right, f"{answer}, and the agent ends")
        elif not world.checks.hand_overs.has_served(run):
            judgements.check(HEALTHZ, answer == 503, f"{answer}, and the agent doesn't serve yet")
        elif not has_workers and now - self._died_at > _TOLD_S:
            judgements.check(HEALTHZ, answer == 503, f"{answer}, and no worker runs")
        else:
            self._check_serving(run, facts)
        if not run.is_ending:
            self._check_shown(run, facts)

    def _serves_since(self, worker: Process) -> float:
        """Return since when a worker may serve: one that is stopped before it does is late."""
        now = self._world.timeline.now
        since = self._workers.get(worker, now)
        is_late = now - since <= _SERVES_AGAIN_S
        return max(since, worker.loop.held_until) if is_late else since

    def _check_serving(self, run: AgentRun, facts: StatusFacts) -> None:
        """Judge the answer of an agent that has a round in force, now and when a change is late."""
        world, now = self._world, self._world.timeline.now
        stays = self._stays(run)
        since = min(self._workers.values(), default=now)
        healthy = None
        if now - max(self._died_at, since) > _SERVES_AGAIN_S or not stays:
            healthy = 200 if stays else 503
            is_late = world.reports.is_late(run, world.unix())
            world.reports.check_answer(facts, world.unix(), 503 if is_late else healthy)
        world.reports.check_late(run, facts, healthy)

    def _stays(self, run: AgentRun) -> bool:
        """Return whether the last Node that an agent has read isn't about to be deleted."""
        world = self._world
        latest = world.reports.of(run.process).latest
        stays = not (latest and latest.node and latest.node.is_being_deleted)
        is_read = world.api is None or world.api.forbidden_until < world.freshness.floor()
        if world.freshness.is_calm and is_read:
            states = world.cluster.between(world.freshness.floor(), world.timeline.now)
            found = {is_leaving(truth.objects.get(("Node", "", NODE))) for truth in states}
            what = (
                f"the agent's Node {'stays' if stays else 'goes'}, and the Node at the server not"
            )
            world.judgements.check(HEALTHZ, (not stays) in found, what)
        return stays

    def _check_shown(self, run: AgentRun, facts: StatusFacts) -> None:
        if self._world.table.refused_last is run.process:
            what = "the kernel has refused the last change, and the status shows no problem"
            check = self._world.judgements.check
            check(SHOWN, bool(facts.steering.problem), what)
            later = self._world.unix() + _LATER_S
            check(LIVEZ, answer_livez(facts, later).status == 200, "rules are refused")

    def check_rest(self) -> None:
        """Judge what an agent answers later if nothing happens any more."""
        world, run = self._world, self._world.agent
        if world.machine.violations or run is None or run.agent is None:
            return
        with run.process:
            facts = run.agent._facts()
        wanted = 200 if self._stays(run) else 503
        for later_s in (0.0, _LATER_S):
            answer = answer_healthz(facts, world.unix() + later_s).status
            what = f"{answer} {later_s:g} s later, not {wanted}, and nothing waits"
            world.judgements.check(HEALTHZ, answer == wanted, what)
