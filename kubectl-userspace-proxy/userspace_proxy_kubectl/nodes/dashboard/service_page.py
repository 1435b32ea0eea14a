"""Renders the page about a Service: its verdict over all nodes, and nodes by endpoints.

                  10.244.0.3:8080  10.244.0.9:8080 ✖
    ✖ node-7      ✖                ✖                   a failing node is a row
      node-1      ●                ✖                   a failing endpoint is a column
      node-2      ●                ✖                   a failing link is a cell

Rule 1: the matrix has as many nodes and endpoints as can be looked at, those that fail first, and
states how many it leaves out.
Rule 2: what a colour shows, the mark of a cell and its words show, too.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from userspace_proxy.causes.say import Form, say
from userspace_proxy.facts import FrontendFacts, Level
from userspace_proxy.facts.units import plural
from userspace_proxy.status.markup import Parts
from userspace_proxy.status.selection import Selection

from ..endpoints import MergedEndpoint
from ..matrix import Cell, CellState, Matrix, MatrixRow, matrix_of
from ..merged import MergedPort, mark_of
from ..words import format_endpoint, format_port
from .client_calls import AllCalls
from .lately import Minute
from .look import ClusterLook
from .markup import render
from .pages import head, say_incidents

NODES_SHOWN = 100
ENDPOINTS_SHOWN = 24
PORTS_SHOWN = 20
CALLS_SHOWN = 20
INCIDENTS_SHOWN = 6
NODES_WITHOUT_SEARCH = 20
FRONTENDS_SHOWN = 8
_MARKS = {
    CellState.SERVED: ("●", "ok"),
    CellState.UNANSWERED: ("◌", "untried"),
    CellState.FAILING: ("✖", "trouble"),
    CellState.NOT_TRIED: ("○", "untried"),
    CellState.NOT_USED: ("–", "unused"),
    CellState.UNKNOWN: ("?", "unknown"),
}
_LEGEND = {
    CellState.SERVED: "answers; with the number of connections",
    CellState.UNANSWERED: "tried; not known whether it answers",
    CellState.FAILING: "fails; with the number of failures",
    CellState.NOT_TRIED: "not tried yet",
    CellState.NOT_USED: "not used from there",
    CellState.UNKNOWN: "not known",
}


@dataclass(frozen=True, slots=True)
class Head:
    """An endpoint at the head of a column."""

    address: str
    pod: str
    """The pod's name; empty if unknown."""
    is_failing: bool
    """It fails for each node that tried it, of at least two."""
    says: str


@dataclass(frozen=True, slots=True)
class ShownCell:
    """A cell in words."""

    kind: str
    mark: str
    says: str
    number: int


@dataclass(frozen=True, slots=True)
class ShownRow:
    """A row in words."""

    row: MatrixRow
    cells: Sequence[ShownCell]
    is_failing: bool
    """All that it tried fails, of at least two."""


@dataclass(frozen=True, slots=True)
class ShownPort:
    """A Service port over all nodes."""

    port: MergedPort
    words: str
    matrix: Matrix
    heads: Sequence[Head]
    rows: Sequence[ShownRow]
    frontends: Sequence[FrontendFacts]
    more_frontends: int
    left_out: Sequence[str]
    minute: Minute


def render_service(
    look: ClusterLook, calls: AllCalls, asked: Selection, service: str
) -> Parts | None:
    """Return the page; None if no node has the Service.

    Args:
        look: Of the Service alone.
        calls: Of the Service, or of more.
    """
    matrices = matrix_of(look.merged, service)
    if not matrices:
        return None
    incidents, answered = look.merged.incidents, len(look.merged.answered)
    said = frozenset[object]().union(*(one.port.causes_of_endpoints for one in matrices))
    ports = [_shown(one, look, asked.q, said) for one in matrices[:PORTS_SHOWN]]
    levels = [one.port.level for one in matrices]
    unhealthy = len(levels) - levels.count(Level.OK)
    mark = mark_of([one.port for one in matrices])
    words = "OK." if mark else "Nothing shows whether all its clients are answered."
    if unhealthy:
        needs = "needs" if unhealthy == 1 else "need"
        words = f"{unhealthy:,} of {plural(len(levels), 'Service port')} {needs} attention."
    own = calls.of_service(service)
    legend = [(*_MARKS[state], words) for state, words in _LEGEND.items()]
    return render(
        "service",
        head(look, asked, service, mark=mark, heading=service, words=words),
        service=service,
        has_search=bool(asked.q) or len(look.merged.nodes) > NODES_WITHOUT_SEARCH,
        incidents=say_incidents(incidents[:INCIDENTS_SHOWN], look.now, answered),
        more_incidents=len(incidents[INCIDENTS_SHOWN:]),
        ports=ports,
        legend=legend,
        calls=own[:CALLS_SHOWN],
        more_calls=len(own[CALLS_SHOWN:]),
    )


def _shown(matrix: Matrix, look: ClusterLook, q: str, said: Collection[object]) -> ShownPort:
    port = matrix.port
    by_address = {one.address: one for one in port.endpoints}
    addresses = matrix.endpoints[:ENDPOINTS_SHOWN]
    found = [row for row in matrix.rows if q.lower() in row.node.lower()]
    rows = [_row(row) for row in found[:NODES_SHOWN]]
    heads = [_head(matrix, at, by_address.get(address)) for at, address in enumerate(addresses)]
    return ShownPort(
        port,
        format_port(port, look.merged, said),
        matrix,
        heads,
        rows,
        port.frontends[:FRONTENDS_SHOWN],
        len(port.frontends[FRONTENDS_SHOWN:]),
        list(_left_out(matrix, len(found))),
        look.lately.minute(port.key),
    )


def _row(row: MatrixRow) -> ShownRow:
    tried = [
        cell.state for cell in row.cells if cell.state in (CellState.SERVED, CellState.FAILING)
    ]
    is_failing = len(tried) > 1 and CellState.SERVED not in tried
    return ShownRow(row, [_cell(cell) for cell in row.cells[:ENDPOINTS_SHOWN]], is_failing)


def _cell(cell: Cell) -> ShownCell:
    mark, kind = _MARKS[cell.state]
    says = str(cell.state)
    if cell.cause is not None:
        says = f"{says}: {say(cell.cause, Form.SHORT_PREDICATE)}"
    elif cell.state is CellState.NOT_USED:
        says = f"{says}: {cell.says}"
    sums = cell.sums
    if sums.connections or sums.failed:
        says = f"{says}; {plural(sums.connections, 'connection')}, {sums.failed:,} failed"
    number = sums.failed if cell.state is CellState.FAILING else sums.connections
    return ShownCell(kind, mark, says, number)


def _head(matrix: Matrix, at: int, endpoint: MergedEndpoint | None) -> Head:
    states = [row.cells[at].state for row in matrix.rows if at < len(row.cells)]
    tried = [one for one in states if one in (CellState.SERVED, CellState.FAILING)]
    is_failing = bool(tried) and CellState.SERVED not in tried
    says = format_endpoint(endpoint) if endpoint is not None else ""
    pod = endpoint.pod if endpoint is not None else ""
    return Head(matrix.endpoints[at], pod, is_failing, says)


def _left_out(matrix: Matrix, found: int) -> Iterator[str]:
    if (more := found - NODES_SHOWN) > 0:
        yield f"{plural(more, 'more node')}, on which less fails: search for their names."
    if (more := len(matrix.endpoints) - ENDPOINTS_SHOWN) > 0:
        yield f"{plural(more, 'more endpoint')}, which fail on fewer nodes."
