"""Decides which endpoints are meant for this node, by the hints of their slices.

    node hints on all, and one for this node ──▶ those
    else zone hints on all, and one for this zone ──▶ those
    else ──▶ all

Source: KEP-2433 and KEP-3015; kube-proxy's topology.go: ready endpoints alone count, and one
without a hint switches that kind of hint off. The annotation service.kubernetes.io/topology-mode
is the controller's affair.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence

from ..model import Endpoint
from .facts import NodeFacts


def why_not_meant(
    ready: Collection[Endpoint], facts: NodeFacts
) -> Callable[[Endpoint], str] | None:
    """Return a function that says why a ready endpoint isn't meant for this node, or nothing.

    Args:
        ready: The ready endpoints.
        facts: Has this node's name and zone.

    Returns:
        None where hints don't decide: all endpoints are meant.
    """
    if _decides(facts.node_name, (e.hinted_nodes for e in ready)):
        name = facts.node_name
        return lambda e: (
            f"meant for {_names(e.hinted_nodes)}" if e.ready and name not in e.hinted_nodes else ""
        )
    if _decides(facts.zone, (e.hinted_zones for e in ready)):
        zone = facts.zone
        return lambda e: (
            f"meant for zone {_names(e.hinted_zones)}"
            if e.ready and zone not in e.hinted_zones
            else ""
        )
    return None


def _decides(own: str, hints: Iterable[Sequence[str]]) -> bool:
    is_named = False
    # One endpoint without a hint ends it: mostly that is the first.
    for names in hints:
        if not (own and names):
            return False
        is_named = is_named or own in names
    return is_named


def _names(names: Sequence[str]) -> str:
    return ", ".join(names)
