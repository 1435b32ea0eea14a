"""Nodes by endpoints of one Service port: shows whether an endpoint, a node or a path fails.

           10.244.1.8:8080  10.244.3.9:8080
node-7     answers          failing            a row of these: the node fails
node-9     answers          not tried          a column: the endpoint
                                               a single one: the path
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from userspace_proxy.causes.cause import Cause
from userspace_proxy.facts import EndpointFacts, Level, PortFacts
from userspace_proxy.facts.units import format_waits

from .endpoints import has_tried, last_answer
from .merged import Merged, MergedPort
from .sums import NOTHING, Sums, of_endpoint
from .words import format_endpoint


class CellState(enum.StrEnum):
    """What a node got from an endpoint."""

    SERVED = "answers"
    UNANSWERED = "not known whether it answers"
    """The node tried it, nothing failed, and no counted answer came back."""
    FAILING = "failing"
    NOT_TRIED = "not tried"
    NOT_USED = "not used"
    """The node doesn't use it: it isn't ready, or not for this node's clients."""
    UNKNOWN = "unknown"
    """The node doesn't answer, doesn't know it, or sent a summary without it."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One endpoint, seen from one node."""

    state: CellState
    cause: Cause | None = None
    """Why it fails."""
    says: str = ""
    """Its state on the node, in the agent's words: ``ready``, ``not ready``, …"""
    sums: Sums = NOTHING


@dataclass(frozen=True, slots=True)
class MatrixRow:
    """One node."""

    node: str
    level: Level | None
    """The Service port's level there; None: unknown."""
    connect: str
    """How long its clients waited for an endpoint's answer, in words; empty if unknown. It is
    measured per node and Service port, not per endpoint."""
    cells: tuple[Cell, ...]
    """The cells, in the endpoints' order."""


@dataclass(frozen=True, slots=True)
class Matrix:
    """One Service port."""

    port: MergedPort
    endpoints: tuple[str, ...]
    """The endpoints' addresses, failing ones first."""
    rows: tuple[MatrixRow, ...]
    """Failing nodes first, nodes without an answer last."""
    failing_endpoints: tuple[str, ...]
    """The conclusions in words: one per endpoint, the worst first."""


UNKNOWN = Cell(CellState.UNKNOWN)


def matrix_of(merged: Merged, service: str) -> tuple[Matrix, ...]:
    """Return a Service's matrices, one per port, family and side.

    Args:
        service: ``shop/web``, or one of its ports: ``shop/web:http``, ``shop/web:80``.
    """
    return tuple(_matrix(port, merged) for port in merged.of_service(service).ports)


def _matrix(port: MergedPort, merged: Merged) -> Matrix:
    endpoints = tuple(one.address for one in port.endpoints)
    rows = [_row(node, port.members.get(node), endpoints) for node in merged.nodes]
    # Merged nodes are already in order.
    rows.sort(key=lambda row: (-_count(row, CellState.FAILING), row.level is None))
    failing_endpoints = tuple(format_endpoint(one) for one in port.endpoints if one.failing)
    return Matrix(port, endpoints, tuple(rows), failing_endpoints)


def _count(row: MatrixRow, state: CellState) -> int:
    return sum(cell.state is state for cell in row.cells)


def _row(node: str, port: PortFacts | None, endpoints: tuple[str, ...]) -> MatrixRow:
    if port is None:
        return MatrixRow(node, None, "", (UNKNOWN,) * len(endpoints))
    known: Mapping[str, EndpointFacts] = {one.address: one for one in port.endpoints}
    cells = tuple(_cells(known, endpoints))
    return MatrixRow(node, port.state.level, format_waits(port.connect_times), cells)


def _cells(known: Mapping[str, EndpointFacts], endpoints: tuple[str, ...]) -> Iterator[Cell]:
    for address in endpoints:
        one = known.get(address)
        yield UNKNOWN if one is None else Cell(_state(one), one.cause, one.state, of_endpoint(one))


def _state(endpoint: EndpointFacts) -> CellState:
    if endpoint.cause is not None:
        return CellState.FAILING
    if not endpoint.is_usable:
        return CellState.NOT_USED
    if last_answer(endpoint):
        return CellState.SERVED
    return CellState.UNANSWERED if has_tried(endpoint) else CellState.NOT_TRIED
