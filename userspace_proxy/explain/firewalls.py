"""Makes the steps about other programs' chains that may drop packets to a Service.

Rule 1: the effect of a chain is known only roughly. If a Service's clients pass it, it is no
problem for them, but may be one for other clients.
Rule 2: a recent first byte proves that clients pass; older ones may predate the chain. Other
clients prove nothing about the client that the user asked about.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..facts import LAST_MINUTE_S, FirewallFacts, Level, PortFacts, StatusFacts
from .explanation import PathStep

_TOPIC = "firewall"


def firewall_steps(
    node: StatusFacts, ports: Sequence[PortFacts], client: str, now: float
) -> Iterator[PathStep]:
    """Yield a step for each chain that may drop packets to a Service; one if there is none.

    Args:
        client: The address of the client that the user asked about; empty: any client.
        now: Unix time.
    """
    for one in node.firewalls:
        is_passed = _is_passed(one, ports, client, now)
        what = f"Chain {_drops(one, 'of other clients' if is_passed else 'to Services')}"
        yield PathStep(None if is_passed else Level.TROUBLE, _TOPIC, what, one.hint)
    # The chain may drop packets to the address, or to an endpoint.
    causes = [cause for port in ports for cause in port.state.causes]
    is_blamed = any(cause.get("chain") or cause.get("rule") for cause in causes)
    if not node.firewalls and not is_blamed and node.steering.name != "none":
        what = "No chain of another program is known to drop packets to it"
        if any(port.is_unseen for port in ports):
            unknown = "on its way in; those at forward are read once its clients get no answer"
            yield PathStep(None, _TOPIC, f"{what} {unknown}")
        else:
            yield PathStep(Level.OK, _TOPIC, what)


def firewall_clause(
    node: StatusFacts | None, ports: Sequence[PortFacts], client: str, now: float
) -> str:
    """Return the first chain that may drop other packets, as the end of a sentence; or empty.

    The arguments are those of :func:`firewall_steps`; without a node, the result is empty.
    """
    chains = () if node is None else node.firewalls
    passed = (one for one in chains if _is_passed(one, ports, client, now))
    first = next(passed, None)
    return "" if first is None else f"; chain {_drops(first, 'of other clients')}"


def _drops(firewall: FirewallFacts, whom: str) -> str:
    return f"{firewall.chain} of another program may drop packets {whom}: {firewall.why}"


def _is_passed(
    firewall: FirewallFacts, ports: Sequence[PortFacts], client: str, now: float
) -> bool:
    return not client and any(_passes(port, firewall, now) for port in ports)


def _passes(port: PortFacts, firewall: FirewallFacts, now: float) -> bool:
    """Return whether packets of a Service port's clients have recently passed a chain."""
    if firewall.family not in ("", port.family):
        return False
    return any(now - endpoint.sent_at < LAST_MINUTE_S for endpoint in port.endpoints)
