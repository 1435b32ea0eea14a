"""Decides which Services are too large for the kernel path.

    size of a Service ──▶ within its bounds? ──▶ room for its rules on the node? ──▶ kernel path
                                └── no                    └── no: the largest of the namespaces
                                                              with the most ──▶ userspace path

The room of the node is shared out by :mod:`userspace_proxy.shares`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from ..balance import count_slots
from ..model import Balance, DataPath, Service, ServiceKey
from ..policy import EndpointIndex, NodeFacts, choose_path
from ..policy.path import PARTS_MAX
from ..shares import Shares
from .claims import PortClaim

ELEMENTS_MAX = 20_000
"""Elements of one Service: its endpoints, or slots, for each address and port.

A change of all of them, as when the path switches, takes 0.1 s, and others wait meanwhile.
"""
RULES_MAX = 2_000
"""Rules of one Service: 4 for each endpoint with session affinity, 1 for each source range.

Both count for each port, family and side. They are written anew when one of them changes: 0.1 s.
"""
NODE_RULES_MAX = 20_000
"""Those of all Services of the node.

The kernel looks at all of them in each transaction that adds or deletes a chain: 15 ms.
"""
# Its chain, which takes as long as a rule, included.
_FOR_PINNED = 4
# A slot of source-hash takes as long as a part of an endpoint.
_SLOTS_FOR_ONE = 16


class KernelSize(NamedTuple):
    """How large a Service is on the kernel path; 0 if it doesn't ask for it."""

    elements: int = 0
    """As in :data:`ELEMENTS_MAX`."""
    rules: int = 0
    """As in :data:`RULES_MAX`."""

    @property
    def excess(self) -> str:
        """Why a Service is too large; empty if it isn't."""
        if self.rules > RULES_MAX:
            return (
                f"it would have more than {RULES_MAX:,} rules: {_FOR_PINNED} for each endpoint "
                "with session affinity and 1 for each source range, counted for each port"
            )
        if self.elements > ELEMENTS_MAX:
            return (
                f"its endpoints, counted for each port and address, are more than {ELEMENTS_MAX:,}"
            )
        return ""


NO_ROOM = (
    "the Services of this node that ask for the kernel path would have more than "
    f"{NODE_RULES_MAX:,} rules, and this one is among the largest of a namespace with more than "
    "its share"
)
NO_SIZE = KernelSize()


def kernel_size(
    service: Service, index: EndpointIndex, claims: Iterable[PortClaim], facts: NodeFacts
) -> KernelSize:
    """Return how large a Service is, at most, by what its slices list."""
    handling, has_affinity = service.handling, service.affinity_timeout_s is not None
    path = choose_path(
        handling,
        facts.default_path,
        facts.no_kernel_path.get(handling.balance, ""),
        allowed=facts.allowed_paths,
        has_affinity=has_affinity,
    ).path
    if path is DataPath.USERSPACE:
        return NO_SIZE
    elements = rules = 0
    for claim in claims:
        if claim.key.family in facts.no_kernel_path:
            continue
        of = claim.key.family, claim.port.name, claim.protocol
        count = index.count(*of)
        if not count:
            continue
        is_weighted = len(index.weights(*of)) > 1
        drawn = max(count, PARTS_MAX) if is_weighted else count
        if handling.balance is Balance.SOURCE_HASH:
            drawn = count_slots(count, is_weighted=is_weighted)
            count = max(count, drawn // _SLOTS_FOR_ONE)
        elements += drawn * len(claim.frontends)
        rules += _FOR_PINNED * count if has_affinity else 0
        rules += len(claim.admits or ())
    return KernelSize(elements, rules)


class KernelRoom:
    """What each Service would have on the kernel path, and which have no room there."""

    def __init__(self) -> None:
        self._rules = Shares[ServiceKey](of_node=NODE_RULES_MAX)

    def lacks(self, key: ServiceKey) -> str:
        """Return why the node has no room for a Service; empty if it has."""
        return NO_ROOM if self._rules.is_left_out(key) else ""

    def change(self, sizes: Mapping[ServiceKey, KernelSize]) -> set[ServiceKey]:
        """Take how large some Services are now.

        Returns:
            The Services that have room now and had none before, or the reverse.
        """
        return self._rules.change({k: 0 if s.excess else s.rules for k, s in sizes.items()})
