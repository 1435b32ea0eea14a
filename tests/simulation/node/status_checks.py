"""What an agent says of Service ports at rest, against what clients saw and objects say."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

from userspace_proxy.diagnosis.problems import problems_of_node
from userspace_proxy.facts import PortState, StatusFacts

from .claims import Dialled
from .clients import ENDED, REFUSED, SERVED, Client
from .families import is_six
from .plan import NODE
from .readings import is_leaving
from .usable_checks import address_of, check_usable

if TYPE_CHECKING:
    from .world import World

STATUS = "status"
# So many changes of the rules by others in a minute are a problem.
_AGAIN = 3

_SERVES_NONE = frozenset(
    {
        PortState.NOT_SERVED,
        PortState.REFUSED,
        PortState.HOLDING,
        PortState.NOT_ANSWERING,
        PortState.OUT_OF_PORTS,
    }
)
"""States of which no client is served; of those that drop or serve partly some are."""


def check_status(world: World, at_rest: Sequence[Client]) -> None:
    """Judge the status of the agent.

    Args:
        at_rest: Clients that came at rest.
    """
    run, check = world.agent, world.judgements.check
    if world.machine.violations or run is None or run.agent is None:
        return
    with run.process:
        facts = run.agent.status()
    addresses: dict[str, set[Dialled]] = defaultdict(set)
    for at, claim in world.cluster.last.frontends.items():
        addresses[claim.name].add(at)
    named = sorted({port.name for port in facts.ports})
    wanted = sorted(addresses)
    check(STATUS, named == wanted, f"the status has the ports {named}, not {wanted}")
    for port in facts.ports:
        is_of_six, own = is_six(address_of(port)[0]), addresses[port.name]
        clients = [
            client for client in at_rest if client.at in own and is_six(client.ip) is is_of_six
        ]
        word = port.state.word
        saw = sorted({client.state for client in clients})
        what = f"the status says that {port.name} is {word}, and its clients were {saw}"
        if not {SERVED, ENDED}.isdisjoint(saw):
            check(STATUS, word not in _SERVES_NONE, what)
        elif saw == [REFUSED]:
            check(STATUS, not word.serves, what)
    check_usable(world, facts)
    _check_health_checks(world, facts)
    _check_problems(world, facts)


def _check_health_checks(world: World, facts: StatusFacts) -> None:
    """Judge which health check ports the status has, with how many ready endpoints."""
    named = {each.port: (each.service, each.local_endpoints) for each in facts.health_checks}
    wanted = dict(world.cluster.last.health_ports)
    what = f"the status has the health check ports {named}, not {wanted}"
    world.judgements.check(STATUS, named == wanted, what)


def _check_problems(world: World, facts: StatusFacts) -> None:
    """Judge that no problem is shown of what has been well for long.

    A disk isn't written again within that time, and rules that were changed again and again are
    named for a minute.
    """
    passing = ["conflict", "last state not kept"]
    if world.checks.drifts >= _AGAIN:
        passing.append("rules changed")
    if not world.cluster.last.open_health_ports:
        # It has a health check, and nothing on the node may answer it, as users have set it.
        passing.append("health check")
    if is_leaving(world.cluster.last.objects.get(("Node", "", NODE))):
        passing.append("node deleted")
    shown = [text for text in (facts.steering.problem, *facts.source.problems) if text]
    shown += [
        problem.what
        for problem in problems_of_node(facts, world.unix())
        # Services that claim one address are a problem of the cluster.
        if not problem.kind.startswith(tuple(passing))
    ]
    is_well = not shown and not facts.steering.has_drifted
    world.judgements.check(STATUS, is_well, f"at rest the status shows the problems {shown}")
