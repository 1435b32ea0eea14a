"""Corrects one node's remedies for endpoints that answer on the nodes where they run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from msgspec import structs

from userspace_proxy.causes.cause import Cause
from userspace_proxy.causes.say import remedy, say
from userspace_proxy.facts import PortFacts

from .agent_answer import AgentAnswer, AllNodes
from .endpoints import Extent, with_extent
from .merged import MergedPort, merge

# The maximum number of nodes to ask for one node's explanation.
_ASKED_MAX = 4


def nodes_of_failing(answers: Sequence[AgentAnswer], service: str) -> tuple[str, ...]:
    """Return the other nodes with endpoints of a Service whose remedy depends on their answers."""
    nodes = {
        endpoint.node
        for one in answers
        if one.status is not None and one.problem is None
        for port in one.status.only(service).ports
        for endpoint in port.endpoints
        if endpoint.cause is not None and endpoint.cause.row.to_some_nodes
    }
    return tuple(sorted(nodes.difference(one.node for one in answers) - {""})[:_ASKED_MAX])


def with_reached(one: AllNodes, others: Sequence[AgentAnswer]) -> AllNodes:
    """Return one node's answer with remedies that take into account which nodes are answered."""
    (answer,) = one.answers
    merged = merge(AllNodes((answer, *others)))
    of_node = (port for port in merged.ports if answer.node in port.members)
    ports = [_reached(port, port.members[answer.node]) for port in of_node]
    assert answer.status is not None
    status = structs.replace(answer.status, ports=ports)
    return replace(one, answers=(replace(answer, status=status),))


def _reached(port: MergedPort, own: PortFacts) -> PortFacts:
    extents = {one.address: one.extent for one in port.endpoints}

    def known(cause: Cause) -> Cause:
        return with_extent(cause, extents.get(str(cause.get("at")), Extent.NONE))

    causes = [known(cause) for cause in own.state.causes]
    hint = remedy(causes[0]) if causes else own.state.hint
    state = structs.replace(own.state, causes=causes, hint=hint)
    for old, new in zip(own.state.causes, causes, strict=True):
        clauses = [
            structs.replace(clause, text=clause.text.replace(say(old), say(new)))
            for clause in state.clauses
        ]
        state = structs.replace(state, clauses=clauses)
    endpoints = [
        structs.replace(one, cause=one.cause and known(one.cause)) for one in own.endpoints
    ]
    return structs.replace(own, state=state, endpoints=endpoints)
