"""Renders the page about a Service: its verdict over all nodes, and nodes by endpoints.

                  10.244.0.3:8080  10.244.0.9:8080 ✖
    ✖ node-7      ✖                ✖                   a failing node is a row
      node-1      ●                ✖                   a failing endpoint is a column
      node-2      ●                ✖                   a failing link is a cell

Rule 1: the matrix has as many nodes and endpoints as a reader can survey, the failing nodes and
endpoints first, and states how many it omits.
Rule 2: the mark of a cell and its words convey the same as its colour.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from userspace_proxy.causes.nodes import listed
from userspace_proxy.causes.say import Form, say
from userspace_proxy.facts import EndpointFacts, Level, PortFacts
from userspace_proxy.facts.units import format_waits, in_order, plural
from userspace_proxy.status.markup import Parts
from userspace_proxy.status.selection import Selection

from ..endpoints import MergedEndpoint, has_tried, last_answer
from ..merged import Merged, MergedPort, mark_of
from ..sums import of_endpoint
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


class CellState(enum.Enum):
    """A node's result at an endpoint: text, mark, style class, text of the legend.

    AT_TIMES: a cause of the last minute names the endpoint, or most of its connections end without
    an answer to the last request. UNANSWERED: the node tried the endpoint without a failure, and no
    counted answer came back.
    NOT_USED: the endpoint isn't ready, isn't used for this node's clients, or isn't in its plan.
    UNKNOWN: the node doesn't answer, doesn't have the port, or sent a summary without it.
    """

    SERVED = "answers", "●", "ok", "answers; with the number of connections"
    AT_TIMES = (
        "answers at times", "◑", "attention", "answers now, not all clients of the last minute"
    )  # fmt: skip
    UNANSWERED = (
        "not known whether it answers", "◌", "untried", "tried; not known whether it answers"
    )  # fmt: skip
    FAILING = "failing", "✖", "trouble", "fails; with the number of failed dials and clients"
    NOT_TRIED = "not tried", "○", "untried", "not tried yet"
    UNSEEN = "not seen", "◌", "untried", "not seen: the kernel sends clients there"
    NOT_USED = "not used", "–", "unused", "not used from there"
    UNKNOWN = "unknown", "?", "unknown", "not known"


@dataclass(frozen=True, slots=True)
class Head:
    """An endpoint, as a column heading."""

    endpoint: MergedEndpoint
    is_failing: bool
    """Whether the endpoint fails for at least one node, and isn't known to answer any."""
    says: str


@dataclass(frozen=True, slots=True)
class Cell:
    """One endpoint, seen from one node."""

    kind: str
    mark: str
    says: str
    number: int


@dataclass(frozen=True, slots=True)
class MatrixRow:
    """A node's row of results, one for each endpoint."""

    node: str
    facts: PortFacts | None
    endpoints: Sequence[EndpointFacts | None]
    states: Sequence[CellState]

    @property
    def mark(self) -> Level | None:
        return None if self.facts is None else self.facts.mark

    @property
    def connect(self) -> str:
        """How long clients waited for an answer, over all endpoints; may be empty."""
        return "" if self.facts is None else format_waits(self.facts.connect_times)

    @property
    def is_failing(self) -> bool:
        """Whether at least two endpoints fail for the node, and none is known to answer it."""
        return _all_fail(self.states, least=2)

    @property
    def cells(self) -> list[Cell]:
        seen = zip(self.endpoints[:ENDPOINTS_SHOWN], self.states, strict=False)
        return [_cell(endpoint, state) for endpoint, state in seen]


@dataclass(frozen=True, slots=True)
class ShownPort:
    """A Service port, aggregated across all nodes."""

    port: MergedPort
    words: str
    heads: Sequence[Head]
    rows: Sequence[MatrixRow]
    left_out: Sequence[str]
    minute: Minute


def render_service(
    look: ClusterLook, calls: AllCalls, asked: Selection, service: str
) -> Parts | None:
    """Return the page of a Service; None if no node has the Service.

    Args:
        look: The nodes, limited to the Service.
        calls: Clients' calls, including the calls to the Service.
    """
    merged = look.merged.of_service(service)
    if not merged.ports:
        return None
    incidents = look.merged.incidents
    said = frozenset[object]().union(*(one.causes_of_endpoints for one in merged.ports))
    # A node that lacks a port, or has an old plan of it, matters as much as one without an answer.
    behind = [row.node for row in merged.rows if service in (row.behind or ())]
    silent = merged.silent.union(behind, *(port.missing for port in merged.ports))
    mark = mark_of(merged.ports, only_known=True)
    words = "OK." if mark else "Nothing shows whether all its clients are answered."
    if unhealthy := merged.unhealthy:
        needs = "needs" if unhealthy == 1 else "need"
        words = f"{unhealthy:,} of {merged.counted} {needs} attention."
    elif mark and silent:
        mark, where = None, listed(sorted(silent, key=in_order), 3)
        words = f"OK on other nodes; not known on {where}."
    words += f" Behind the API server: {listed(sorted(behind, key=in_order), 3)}." * bool(behind)
    own = calls.of_service(service)
    return render(
        "service",
        head(look, asked, service, mark=mark, heading=service, words=words),
        service=service,
        has_search=bool(asked.q) or len(look.merged.nodes) > NODES_WITHOUT_SEARCH,
        incidents=say_incidents(incidents[:INCIDENTS_SHOWN], look.merged, look.now),
        more_incidents=len(incidents[INCIDENTS_SHOWN:]),
        ports=[_shown(one, look, asked.q, said) for one in merged.ports[:PORTS_SHOWN]],
        frontends_shown=FRONTENDS_SHOWN,
        legend=[state.value[1:] for state in CellState],
        calls=own[:CALLS_SHOWN],
        is_unseen=any(one.is_unseen for port in merged.ports for one in port.endpoints),
        more_calls=len(own[CALLS_SHOWN:]),
    )


def _shown(port: MergedPort, look: ClusterLook, q: str, said: Collection[object]) -> ShownPort:
    rows = nodes_of(port, look.merged)
    found = [row for row in rows if q.lower() in row.node.lower()]
    heads = [
        Head(one, _all_fail([row.states[at] for row in rows], least=1), format_endpoint(one))
        for at, one in enumerate(port.endpoints[:ENDPOINTS_SHOWN])
    ]
    return ShownPort(
        port,
        format_port(port, look.merged, said),
        heads,
        found[:NODES_SHOWN],
        list(_left_out(len(found), len(port.endpoints))),
        look.lately.minute(port.key),
    )


def nodes_of(port: MergedPort, merged: Merged) -> list[MatrixRow]:
    """Return rows: those with most failing endpoints first; of equal rows, without facts last."""
    rows = []
    for node in merged.nodes:
        facts = port.members.get(node)
        known: Mapping[str, EndpointFacts] = {}
        if facts is not None:
            known = {one.address: one for one in facts.endpoints}
        endpoints = [known.get(one.address) for one in port.endpoints]
        states = [_state(facts, one) for one in endpoints]
        rows.append(MatrixRow(node, facts, endpoints, states))
    # The merged nodes are already sorted, and equal rows keep their order.
    rows.sort(key=lambda row: (-row.states.count(CellState.FAILING), row.facts is None))
    return rows


def _state(facts: PortFacts | None, endpoint: EndpointFacts | None) -> CellState:
    if facts is None:
        return CellState.UNKNOWN
    if endpoint is None:
        return CellState.NOT_USED
    if endpoint.cause is not None:
        is_over = endpoint.is_past and facts.mark_of(endpoint) is None
        return CellState.UNANSWERED if is_over else CellState.FAILING
    if not endpoint.is_usable:
        return CellState.NOT_USED
    if last_answer(endpoint):
        is_doubted = facts.mark_of(endpoint) is not endpoint.level
        return CellState.AT_TIMES if is_doubted else CellState.SERVED
    if has_tried(endpoint):
        return CellState.UNANSWERED
    if facts.is_unseen:
        return CellState.FAILING if facts.mark_of(endpoint) else CellState.UNSEEN
    return CellState.NOT_TRIED


def _all_fail(states: Sequence[CellState], *, least: int) -> bool:
    return (
        not {CellState.SERVED, CellState.AT_TIMES} & {*states}
        and states.count(CellState.FAILING) >= least
    )


def _cell(endpoint: EndpointFacts | None, state: CellState) -> Cell:
    says, mark, kind, _ = state.value
    if endpoint is None:
        lacking = ": not in this node's plan" if state is CellState.NOT_USED else ""
        return Cell(kind, mark, f"{says}{lacking}", 0)
    if endpoint.cause is not None:
        says = f"{says}: {say(endpoint.cause, Form.SHORT_PREDICATE)}"
    elif state is CellState.NOT_USED:
        says = f"{says}: {endpoint.state}"
    sums = of_endpoint(endpoint)
    if sums.connections or sums.failed:
        counted = (
            f"{plural(sums.connections, 'connection')}, {sums.failed:,} failed dials and clients"
        )
        says = f"{says}; {counted}"
    return Cell(kind, mark, says, sums.failed if endpoint.cause is not None else sums.connections)


def _left_out(nodes: int, endpoints: int) -> Iterator[str]:
    if (more := nodes - NODES_SHOWN) > 0:
        yield f"{plural(more, 'more node')}, on which less fails: search for their names."
    if (more := endpoints - ENDPOINTS_SHOWN) > 0:
        yield f"{plural(more, 'more endpoint')}, which fail on fewer nodes."
