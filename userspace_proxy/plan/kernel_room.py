"""Decides which Services are too large for the kernel path, and which need coarse weights.

    size of a Service ──▶ within its bounds? ──▶ room on the node? ──▶ kernel path
                                └── no               └── no: the largest Services of the largest
                                                         namespaces ──▶ userspace path
    exact weights ──▶ room for their additional elements? ── no ──▶ coarse weights

:mod:`userspace_proxy.shares` divides the node's room for rules, for elements, and for exact
weights.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Sized
from typing import NamedTuple

from ..balance import count_slots
from ..cluster import ServiceState, Slices
from ..model import Balance, DataPath, EndpointSlice, Service, ServiceKey
from ..policy import EndpointIndex, NodeFacts, Scope, choose_path
from ..policy.path import COARSE_PARTS, PARTS_MAX
from ..policy.port_ranges import has_udp_range
from ..shares import Shares
from .claims import PortClaim

ELEMENTS_MAX = 20_000
"""The maximum number of map elements of a Service: endpoints, or slots, per address and port.

Changing all of them, for example to switch the path, takes 0.1 s, while other changes wait.
"""
RULES_MAX = 2_000
"""The maximum number of rules for one Service: 4 per endpoint with session affinity and 1 per
source range, for each port, address family and side.

A change to one rule rewrites all of them, which takes 0.1 s."""
NODE_ELEMENTS_MAX = 131_072
"""The maximum number of map elements for all Services of the node, with coarse weights.

Each takes 100 bytes in the kernel, 330 in this process during a comparison, and 7 µs to write.
"""
NODE_EXACT_MAX = 65_536
"""The maximum number of additional elements for exact weights: enough for 16 ports with
source-hash, or 300 ports with parts."""
RULE_ELEMENTS = 7
"""The number of elements that take as long to write as one rule."""
NODE_RULES_MAX = 20_000
"""The maximum number of rules for all Services of the node.

The kernel checks all rules in each transaction that adds or deletes a chain, which takes 15 ms.
"""
# The rules per endpoint with affinity, including the endpoint's chain, which takes as long as a
# rule.
_FOR_PINNED = 4
# The other rules of a port: the chain and the map by which its rules choose endpoints.
_FOR_CHOICE = 4
# The elements of each frontend besides its endpoints: counter, forwarding, choice.
_FOR_FRONTEND = 3
# The number of slots of source-hash that cost as much as one endpoint.
_SLOTS_FOR_ONE = 16


class KernelSize(NamedTuple):
    """The size of a Service on the kernel path; 0 unless it requests that path."""

    elements: int = 0
    """The number of elements, as in :data:`ELEMENTS_MAX`, with coarse weights."""
    rules: int = 0
    """The number of rules, as in :data:`RULES_MAX`."""
    exact: int = 0
    """The number of additional elements for exact weights."""

    @property
    def excess(self) -> str:
        """Why the Service is too large; empty if it isn't."""
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


class KernelFit(NamedTuple):
    """Whether a Service fits on the kernel path, and with which weights."""

    obstacle: str = ""
    """Why the Service can't take the kernel path; empty if it can."""
    coarse: str = ""
    """Why the Service has coarse weights on the kernel path; empty if it has exact weights."""


FITS = KernelFit()
NO_SIZE = KernelSize()
_LARGEST = "this one is among the largest of a namespace with more than its share"
_NO_ROOM = (
    "the Services of this node that ask for the kernel path would have more than {:,} {}, and "
    + _LARGEST
)
NO_RULES = _NO_ROOM.format(NODE_RULES_MAX, "rules")
NO_ELEMENTS = _NO_ROOM.format(NODE_ELEMENTS_MAX, "endpoints or slots")
COARSE = (
    f"those of this node's Services would take more than {NODE_EXACT_MAX:,} parts or slots, and "
    + _LARGEST
)
TOO_EXACT = f"they would take more than {ELEMENTS_MAX:,} parts or slots"


def kernel_size(
    service: Service, index: EndpointIndex, claims: Iterable[PortClaim], facts: NodeFacts
) -> KernelSize:
    """Return the maximum size of a Service, computed from its slices."""
    if not _asks(service, facts):
        return NO_SIZE
    handling, has_affinity = service.handling, service.affinity_timeout_s is not None
    elements = rules = exact = 0
    for claim in claims:
        if claim.key.family in facts.no_kernel_path:
            continue
        of = claim.key.family, claim.port.name, claim.protocol
        count = index.count(*of)
        if not count:
            continue
        coarse, drawn = _drawn(handling.balance, count, is_weighted=len(index.weights(*of)) > 1)
        if handling.balance is Balance.SOURCE_HASH:
            count = max(count, drawn // _SLOTS_FOR_ONE)
        # Clients from outside may use other endpoints, and then need a separate choice.
        choices = len(claim.frontends) * (1 + (claim.scope is Scope.LOCAL_FROM_OUTSIDE))
        elements += coarse * choices
        exact += max(0, drawn - coarse) * choices
        # Like affinity, a port range needs a separate chain for each endpoint.
        spans = {(f.port, f.last) for f in claim.frontends if f.last}
        for has_chains in (has_affinity, *(True for _ in spans)):
            rules += count_rules(count, claim.admits, has_affinity=has_chains)
    return KernelSize(elements, rules, exact)


def count_rules(endpoints: int, ranges: Sized | None, *, has_affinity: bool) -> int:
    """Return the number of rules for a Service port, including one for each source range."""
    return (_FOR_PINNED * endpoints if has_affinity else 0) + len(ranges or ())


def count_elements(choices: int, frontends: int, rules: int) -> int:
    """Return how many elements take as long to write as a whole Service port."""
    of_rules = RULE_ELEMENTS * (rules + _FOR_CHOICE) if rules else 0
    return (choices + _FOR_FRONTEND) * frontends + of_rules


def _asks(service: Service, facts: NodeFacts) -> bool:
    """Return whether a Service has a UDP range, or an allowed request for the kernel path."""
    handling = service.handling
    if has_udp_range(service):
        return True
    path = choose_path(
        handling,
        facts.default_path,
        facts.no_kernel_path.get(handling.balance, ""),
        allowed=facts.allowed_paths,
        has_affinity=service.affinity_timeout_s is not None,
    ).path
    return path is not DataPath.USERSPACE


def _drawn(balance: Balance, count: int, *, is_weighted: bool) -> tuple[int, int]:
    """Return the number of elements that a frontend chooses from, with coarse and exact weights."""
    if balance is Balance.SOURCE_HASH:
        exact = count_slots(count, is_weighted=is_weighted)
        return count_slots(count, is_weighted=False), exact
    return (count + COARSE_PARTS, max(count, PARTS_MAX)) if is_weighted else (count, count)


class KernelRoom:
    """The size of each Service on the kernel path, and the Services that don't fit."""

    def __init__(self) -> None:
        self._rules = Shares[ServiceKey](of_node=NODE_RULES_MAX)
        self._elements = Shares[ServiceKey](of_node=NODE_ELEMENTS_MAX)
        self._exact = Shares[ServiceKey](of_node=NODE_EXACT_MAX)

    def fit(self, key: ServiceKey, size: KernelSize) -> KernelFit:
        """Return whether a Service of that size fits, and with which weights."""
        obstacle = size.excess
        if not obstacle and self._rules.is_left_out(key):
            obstacle = NO_RULES
        if not obstacle and self._elements.is_left_out(key):
            obstacle = NO_ELEMENTS
        if size.elements + size.exact > ELEMENTS_MAX:
            return KernelFit(obstacle, TOO_EXACT)
        return KernelFit(obstacle, COARSE if self._exact.is_left_out(key) else "")

    def change(self, sizes: Mapping[ServiceKey, KernelSize]) -> set[ServiceKey]:
        """Update the sizes of some Services.

        Returns:
            The Services whose fit has changed.
        """
        fitting = {key: NO_SIZE if size.excess else size for key, size in sizes.items()}
        moved = self._rules.change({key: size.rules for key, size in fitting.items()})
        moved |= self._elements.change({key: size.elements for key, size in fitting.items()})
        # A Service that exceeds its own limit never fits, however much room is left.
        return moved | self._exact.change(
            {
                key: size.exact if size.elements + size.exact <= ELEMENTS_MAX else 0
                for key, size in fitting.items()
            }
        )

    def elements(self, state: ServiceState, facts: NodeFacts) -> int:
        """Estimate from a Service's slices how many elements a change to the Service may write.

        A rule counts as :data:`RULE_ELEMENTS`.
        """
        service, slices = state.service, Slices.of(state.slices)
        listed = slices.endpoint_count
        if not listed or not _asks(service, facts):
            return 0
        is_weighted = len(frozenset[int]().union(*slices.derive(_weights))) > 1
        coarse, exact = _drawn(service.handling.balance, listed, is_weighted=is_weighted)
        each = coarse if self._exact.is_left_out(service.key) else exact
        has_affinity = service.affinity_timeout_s is not None
        rules = count_rules(listed, service.load_balancer_source_ranges, has_affinity=has_affinity)
        of_port = count_elements(each, len(service.addresses), rules)
        return min(of_port * len(service.ports), ELEMENTS_MAX)


def _weights(slices: Sequence[EndpointSlice]) -> frozenset[int]:
    # Read only the first endpoint: all endpoints of a slice nearly always have the same weight.
    return frozenset(item.endpoints[0].weight for item in slices if item.endpoints)
