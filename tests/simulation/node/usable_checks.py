"""Which endpoints an agent shows as usable at rest: all that may serve, and no other one.

Clients alone don't show that one is left out while others serve.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from userspace_proxy.facts import PortFacts, StatusFacts

from .families import is_six

if TYPE_CHECKING:
    from .world import World

USABLE = "usable endpoints at rest"


def check_usable(world: World, facts: StatusFacts) -> None:
    """Judge the endpoints of each Service port, for clients from outside where these differ."""
    truth = world.cluster.last
    for port in facts.ports:
        ip, number = address_of(port)
        claim = truth.frontends.get((ip, number, port.protocol))
        if claim is None:
            # The status has another Service port than the truth, which is judged as such.
            continue
        shown = sorted(each.address for each in port.endpoints if each.is_usable)
        wanted = sorted(_as_shown(*each) for each in truth.usable(claim))
        what = f"{port.name} has the usable endpoints {shown}, not {wanted}"
        world.judgements.check(USABLE, shown == wanted, what)


def address_of(port: PortFacts) -> tuple[str, int]:
    """Return the first address of a Service port, and its number."""
    ip, _, number = port.frontends[0].address.rpartition(":")
    return ip.strip("[]"), int(number)


def _as_shown(ip: str, number: int) -> str:
    return f"[{ip}]:{number}" if is_six(ip) else f"{ip}:{number}"
