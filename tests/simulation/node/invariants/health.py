"""Load balancers and the kubelet get the right answers: 200 if clients may be sent to the node, 503
if the node can't serve. A health check node port answers 200 only if there is a local endpoint.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from userspace_proxy.facts import StatusFacts
from userspace_proxy.status.health import answer_healthz, answer_livez

from ...machine.files import WORKER
from ..plan import NODE
from ..readings import is_leaving
from ..seam import answer_of
from .base import Invariant

if TYPE_CHECKING:
    from ..agents import AgentRun

# The time within which an agent detects a worker's first message, or a worker's exit.
_TOLD_S = 0.3
# Changes count as late after a minute; nothing is pending on an idle node.
_LATER_S = 3600.0


class Health(Invariant):
    """Judges the answers to probes, as the module describes."""

    NAME = "health"

    def look(self) -> None:
        world, now, run = self._world, self._world.timeline.now, self._world.agent
        if run is None or run.agent is None or not run.is_started:
            return
        # A suspended process doesn't answer.
        if run.process.loop.held_until > now - _TOLD_S:
            return
        with run.process:
            facts = run.agent._facts()
        self.check(answer_livez(facts, world.unix()).status == 200, "it asks for a restart")
        answer = answer_healthz(facts, world.unix()).status
        is_about_to_serve = run.is_serving and not run.has_served
        if run.is_ending:
            # Even if its first round has just been applied, an ending agent answers 503.
            is_right = answer == 503 or now - run.ends_since <= _TOLD_S
            self.check(is_right, f"/healthz says {answer}, and the agent ends")
        elif not run.has_served and not is_about_to_serve:
            self.check(answer == 503, f"/healthz says {answer}, and no round is in force")
        elif world.freshness.is_calm and self._has_workers(run):
            states = world.cluster.between(world.freshness.floor(), now)
            leaving = {is_leaving(truth.objects.get(("Node", "", NODE))) for truth in states}
            allowed = {503 if leaves else 200 for leaves in leaving}
            self.check(answer in allowed, f"/healthz says {answer}, not {allowed}")
        if not run.is_ending:
            self._check_ports(run)

    def _has_workers(self, run: AgentRun) -> bool:
        alive = self._world.machine.alive(WORKER)
        return any(each.parent is run.process for each in alive)

    def _check_ports(self, run: AgentRun) -> None:
        """Judge the answers of health check ports."""
        world = self._world
        if run.core is None:
            return
        states = list(world.cluster.between(world.freshness.floor(), world.timeline.now))
        if not world.freshness.is_calm:
            return
        # While a port opens or closes, its Service's slices may be newer or older than the Service.
        for number in set.intersection(*(set(truth.open_health_ports) for truth in states)):
            with run.process:
                status = answer_of(run.core.health_checks, number)
            counts = [truth.open_health_ports[number][1] for truth in states]
            is_right = status == 200 if all(counts) else status != 200 or any(counts)
            self.check(is_right, f"health check port {number} says {status} with {counts} ready")

    def check_rest(self) -> None:
        """Check the answers of an idle agent, now and an hour later."""
        world, run = self._world, self._world.agent
        if run is None or run.agent is None:
            return
        with run.process:
            facts: StatusFacts = run.agent._facts()
        leaves = is_leaving(world.cluster.last.objects.get(("Node", "", NODE)))
        for later_s in (0.0, _LATER_S):
            answer = answer_healthz(facts, world.unix() + later_s).status
            what = f"/healthz says {answer} {later_s:g} s later, and nothing waits"
            self.check(answer == (503 if leaves else 200), what)
