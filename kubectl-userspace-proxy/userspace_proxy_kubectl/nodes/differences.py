"""Finds differences between the Services that a node serves and the API server's objects.

    planned from the API server ──┐
    answer of a node ─────────────┴──▶ PlanDifference for each Service port ──▶ words

Only properties that are equal on all nodes are compared: the Service ports, their addresses, and
the ready endpoints.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from userspace_proxy.facts import PortFacts
from userspace_proxy.facts.units import plural
from userspace_proxy.policy.usable import EndpointState

# The maximum number of names per difference; all nodes of a cluster may lack a thousand endpoints.
_NAMED_MAX = 3
_OF_CLUSTER = {
    EndpointState.READY,
    EndpointState.PUBLISHED,
    EndpointState.NOT_READY,
    EndpointState.TERMINATING,
    EndpointState.HAS_ENDED,
}
"""The states of endpoints that don't depend on the node."""
_NODE_PORT = "NodePort"


@dataclass(frozen=True, slots=True)
class PlanDifference:
    """How one Service port differs from its plan; equal on nodes that lack the same changes."""

    port: str
    """``shop/web:http (IPv4)``."""
    is_lacking: bool = False
    is_former: bool = False
    lacks: tuple[str, ...] = ()
    keeps: tuple[str, ...] = ()
    states: tuple[tuple[str, str, str], ...] = ()
    """Endpoints with another state on the node: address, state on the node, expected state."""

    def __str__(self) -> str:
        if self.is_lacking:
            return f"it lacks {self.port}"
        if self.is_former:
            return f"it still has {self.port}"
        parts = [f"it lacks {_listed(self.lacks)}"] if self.lacks else []
        parts += [f"it still has {_listed(self.keeps)}"] if self.keeps else []
        shown = [
            f'{one} is "{there}" there, "{here}" as planned' for one, there, here in self.states
        ]
        more = len(shown) - _NAMED_MAX
        parts += shown[:_NAMED_MAX] + ([f"{more:,} more differ"] if more > 0 else [])
        return f"{self.port}: {'; '.join(parts)}"


def differences(
    planned: Sequence[PortFacts], there: Sequence[PortFacts]
) -> tuple[PlanDifference, ...]:
    """Return how a Service on a node differs from its plan, sorted by Service port.

    Args:
        planned: One Service's ports, planned from the API server's objects.
        there: The ports in the node's answer.
    """
    wanted, found = _by_title(planned), _by_title(there)
    lacking = [PlanDifference(title, is_lacking=True) for title in wanted.keys() - found.keys()]
    former = [PlanDifference(title, is_former=True) for title in found.keys() - wanted.keys()]
    both = (_difference(title, wanted[title], found[title]) for title in wanted if title in found)
    return tuple(sorted([*lacking, *former, *filter(None, both)], key=lambda one: one.port))


def _difference(title: str, wanted: PortFacts, found: PortFacts) -> PlanDifference | None:
    here, there = _states(wanted), _states(found)
    dialled, dialled_there = _addresses(wanted), _addresses(found)
    states = [
        (address, there[address], state)
        for address, state in here.items()
        if address in there and there[address] != state and {state, there[address]} <= _OF_CLUSTER
    ]
    one = PlanDifference(
        title,
        lacks=(*_without(dialled, dialled_there), *_without(here, there)),
        keeps=(*_without(dialled_there, dialled), *_without(there, here)),
        states=tuple(states),
    )
    return one if one.lacks or one.keeps or one.states else None


def _by_title(ports: Iterable[PortFacts]) -> Mapping[str, PortFacts]:
    return {
        f"{port.title} ({', '.join(filter(None, (port.family, port.side)))})": port
        for port in ports
    }


def _states(port: PortFacts) -> Mapping[str, str]:
    return {endpoint.address: endpoint.state for endpoint in port.endpoints}


def _addresses(port: PortFacts) -> Sequence[str]:
    """Return the frontend addresses except node ports, whose addresses differ between nodes."""
    return [one.address for one in port.frontends if one.kind != _NODE_PORT]


def _without(these: Iterable[str], others: Iterable[str]) -> list[str]:
    left_out = set(others)
    return [one for one in these if one not in left_out]


def _listed(names: Sequence[str]) -> str:
    *before, last = names[:_NAMED_MAX]
    if more := max(len(names) - _NAMED_MAX, 0):
        return f"{', '.join([*before, last])} and {plural(more, 'other')}"
    return f"{', '.join(before)} and {last}" if before else last
