"""Decides from the hints in slices which endpoints are meant for this node.

    all endpoints have node hints, some for this node ──▶ endpoints for this node
    else all have zone hints, some for this zone ──▶ endpoints for this zone
    else ──▶ all endpoints

Rule 1: hints choose among endpoints of equal priority, so they never prefer a lower priority.

Source: KEP-2433 and KEP-3015; kube-proxy's topology.go: only ready endpoints count, and an endpoint
without a hint disables that kind of hint. The annotation service.kubernetes.io/topology-mode
concerns only the controller.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence

from ..model import Endpoint
from .facts import NodeFacts


def not_meant_reason(
    ready: Collection[Endpoint], facts: NodeFacts, *, by_priority: bool = False
) -> Callable[[Endpoint], str] | None:
    """Return a function that explains why a ready endpoint isn't meant for this node.

    Args:
        by_priority: Whether the endpoints may have different priorities.

    Returns:
        None if hints don't decide; never with ``by_priority``. The function returns "" for an
        endpoint that is meant for this node or isn't ready.
    """
    if not by_priority:
        return _not_meant_reason(ready, facts)
    of_each = {
        priority: _not_meant_reason([e for e in ready if e.priority == priority], facts)
        for priority in {e.priority for e in ready}
    }

    def why(endpoint: Endpoint) -> str:
        of_priority = of_each.get(endpoint.priority)
        return of_priority(endpoint) if of_priority else ""

    return why


def _not_meant_reason(
    ready: Collection[Endpoint], facts: NodeFacts
) -> Callable[[Endpoint], str] | None:
    """Return the function for endpoints of one priority; None if hints don't decide."""
    if _decides(facts.node_name, (e.hinted_nodes for e in ready)):
        name = facts.node_name
        return lambda e: (
            f"meant for {', '.join(e.hinted_nodes)}"
            if e.ready and name not in e.hinted_nodes
            else ""
        )
    if _decides(facts.zone, (e.hinted_zones for e in ready)):
        zone = facts.zone
        return lambda e: (
            f"meant for zone {', '.join(e.hinted_zones)}"
            if e.ready and zone not in e.hinted_zones
            else ""
        )
    return None


def _decides(own: str, hints: Iterable[Sequence[str]]) -> bool:
    is_named = False
    # An endpoint without a hint disables this kind of hint, and usually the first endpoint has
    # none, so the loop ends early.
    for names in hints:
        if not (own and names):
            return False
        is_named = is_named or own in names
    return is_named
