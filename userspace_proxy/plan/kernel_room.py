"""Decides which Services are too large for the kernel path.

    size of a Service ──▶ within its bounds? ──▶ room for its rules on the node? ──▶ kernel path
                                └── no                    └── no: the largest of the namespaces
                                                              with the most ──▶ userspace path

Rule 1: while the node has room, a namespace may have all of it; otherwise no namespace with less
than an equal share loses a Service.
Rule 2: a small Service never leaves because of a larger one of its namespace.
Rule 3: the answer depends on the Services alone, so it is the same on all nodes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from ..balance import count_slots
from ..model import Balance, DataPath, Service, ServiceKey
from ..policy import EndpointIndex, NodeFacts, choose_path
from ..policy.path import PARTS_MAX
from .claims import PortClaim
from .namespace_shares import ServiceCounts

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
_NOTHING = KernelSize()


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
        return _NOTHING
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


class RuleShares:
    """How many rules each Service would have on the kernel path, and which have no room."""

    def __init__(self) -> None:
        self._counts = ServiceCounts()
        self._left_out: frozenset[ServiceKey] = frozenset()

    def is_left_out(self, key: ServiceKey) -> bool:
        return key in self._left_out

    def change(
        self, gone: Iterable[ServiceKey], sizes: Mapping[ServiceKey, KernelSize]
    ) -> frozenset[ServiceKey]:
        """Take how large some Services are now.

        Returns:
            The Services that are left out now and weren't before, or the reverse.
        """
        counts = {key: 0 if size.excess else size.rules for key, size in sizes.items()}
        if not self._counts.change(gone, counts):
            return frozenset()
        before, self._left_out = self._left_out, self._choose()
        return before ^ self._left_out

    def _choose(self) -> frozenset[ServiceKey]:
        if self._counts.total <= NODE_RULES_MAX:
            return frozenset()
        totals = self._counts.totals
        left, all_left_out = NODE_RULES_MAX, set[ServiceKey]()
        # What a namespace leaves of its share is for those that want more.
        for others, namespace in enumerate(sorted(totals, key=lambda one: (totals[one], one))):
            left_out, taken = self._counts.divide(namespace, left // (len(totals) - others))
            all_left_out |= left_out
            left -= taken
        return frozenset(all_left_out)
