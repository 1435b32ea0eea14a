"""The status agrees with clients' outcomes: problems while clients fail, and none otherwise; and
for each Service port exactly the endpoints that may serve.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

from userspace_proxy.diagnosis.problems import problems_of_node
from userspace_proxy.facts import PortFacts, PortState, StatusFacts

from ..claims import Dialled
from ..clients import ENDED, REFUSED, SERVED, Client
from ..families import is_six
from ..plan import DRIFT, NODE
from ..readings import is_leaving
from .base import Invariant

if TYPE_CHECKING:
    from ..world import World

# The time until the next repair finds what other programs have changed.
_SEEN_S = 2.5
_SERVES_NONE = frozenset(
    {
        PortState.NOT_SERVED,
        PortState.REFUSED,
        PortState.HOLDING,
        PortState.NOT_ANSWERING,
        PortState.OUT_OF_PORTS,
    }
)
"""States in which no client is served; states with dropped or partial service serve some."""


class Status(Invariant):
    """Judges the status, as the module describes."""

    NAME = "status"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._taken: tuple[float, int] | None = None
        """Since when another program has taken clients, and the refusals before; None for none."""
        self._look_at = 0.0

    def look(self) -> None:
        """Check that addresses that another program has taken are reported as not served."""
        world, now, run = self._world, self._world.timeline.now, self._world.agent
        if not world.kernel.has_taker or run is None or run.agent is None:
            self._taken = None
            return
        since, refused = self._taken = self._taken or (now, world.refusals)
        is_disturbed = run.is_ending or world.refusals != refused or world.machine.slow_s
        is_disturbed = is_disturbed or run.process.loop.held_until > since
        if is_disturbed or run.served_at > since or now < max(since + _SEEN_S, self._look_at):
            return
        self._look_at = now + _SEEN_S
        changing_s = _SEEN_S + world.plan.turns_s
        if len(list(world.cluster.between(now - changing_s, now))) > 1:
            return
        with run.process:
            facts = run.agent.status()
        # While rules can't be applied, the page reports that instead.
        for port in () if facts.steering.problem else facts.ports:
            if port.protocol == "TCP" and not any("[" in each.address for each in port.frontends):
                what = f"another program takes clients of {port.name}, which is {port.state.word}"
                self.check(not port.state.word.serves, what)

    def check_clients(self, clients: Sequence[Client]) -> None:
        world, run = self._world, self._world.agent
        if run is None or run.agent is None:
            return
        with run.process:
            facts = run.agent.status()
        addresses: dict[str, set[Dialled]] = defaultdict(set)
        for at, claim in world.cluster.last.frontends.items():
            addresses[claim.name].add(at)
        named, wanted = sorted({port.name for port in facts.ports}), sorted(addresses)
        self.check(named == wanted, f"the status has the ports {named}, not {wanted}")
        for port in facts.ports:
            is_of_six, own = is_six(_address_of(port)[0]), addresses[port.name]
            saw = {c.state for c in clients if c.at in own and is_six(c.ip) is is_of_six}
            word = port.state.word
            what = f"the status says that {port.name} is {word}, and its clients were {saw}"
            if not {SERVED, ENDED}.isdisjoint(saw):
                self.check(word not in _SERVES_NONE, what)
            elif saw == {REFUSED}:
                self.check(not word.serves, what)
            self._check_usable(port)
        self._check_problems(facts)

    def _check_usable(self, port: PortFacts) -> None:
        """Check that the endpoints shown as usable are usable at the port's first address."""
        truth = self._world.cluster.last
        ip, number = _address_of(port)
        claim = truth.frontends.get((ip, number, port.protocol))
        if claim is not None:
            shown = sorted(each.address for each in port.endpoints if each.is_usable)
            wanted = sorted(_as_shown(*each) for each in truth.usable(claim))
            what = f"{port.name} has the usable endpoints {shown}, not {wanted}"
            self.check(shown == wanted, what)

    def _check_problems(self, facts: StatusFacts) -> None:
        """Check that no resolved problem is shown for long.

        Exceptions: the state file isn't written again within that time; changed rules are reported
        for a minute; and Services that claim the same address are a problem of the cluster.
        """
        world = self._world
        passing = ["conflict", "last state not kept"]
        if any(event.what == DRIFT for event in world.plan.events):
            passing.append("rules changed")
        if not world.cluster.last.open_health_ports:
            # With these settings it is possible that no address of the node answers a health check.
            passing.append("health check")
        if is_leaving(world.cluster.last.objects.get(("Node", "", NODE))):
            passing.append("node deleted")
        shown = [text for text in (facts.steering.problem, *facts.source.problems) if text]
        shown += [
            problem.what
            for problem in problems_of_node(facts, world.unix())
            if not problem.kind.startswith(tuple(passing))
        ]
        is_right = not shown and not facts.steering.has_drifted
        self.check(is_right, f"at rest the status shows the problems {shown}")


def _address_of(port: PortFacts) -> tuple[str, int]:
    """Return the first address of a Service port, with its port number."""
    ip, _, number = port.frontends[0].address.rpartition(":")
    return ip.strip("[]"), int(number)


def _as_shown(ip: str, number: int) -> str:
    return f"[{ip}]:{number}" if is_six(ip) else f"{ip}:{number}"
