"""The weights and priorities of usable endpoints, where they matter."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from ..model import DEFAULT_WEIGHT, Endpoint, SocketAddress

Numbers = tuple[tuple[SocketAddress, int], ...]


def read_preferences(
    endpoints: Mapping[SocketAddress, Endpoint], usable: Collection[SocketAddress]
) -> tuple[Numbers, Numbers]:
    """Return the weights of usable endpoints, and those priorities that aren't 0.

    Args:
        usable: Some of the endpoints; may contain one twice.

    Returns:
        Both in the order of ``usable``; empty if all endpoints have the same.
    """
    # Cost: nearly all Services have neither.
    if all(e.weight == DEFAULT_WEIGHT and not e.priority for e in endpoints.values()):
        return (), ()
    weights = {address: endpoints[address].weight for address in usable}
    priorities = {address: endpoints[address].priority for address in usable}
    is_weighted = len(set(weights.values())) > 1
    has_standbys = len(set(priorities.values())) > 1
    return (
        tuple(weights.items()) if is_weighted else (),
        tuple((a, n) for a, n in priorities.items() if n) if has_standbys else (),
    )
