"""Corrects one node's remedies for endpoints that answer other nodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from msgspec import structs

from userspace_proxy.causes.cause import Cause
from userspace_proxy.causes.say import say
from userspace_proxy.diagnosis.incidents import remedy_in
from userspace_proxy.facts import PortFacts

from .agent_answer import AgentAnswer, AllNodes
from .endpoints import Extent, with_extent
from .merged import MergedPort, merge


def depends_on_others(answers: Sequence[AgentAnswer], service: str) -> bool:
    """Return whether remedies for a Service's endpoints depend on other nodes' answers."""
    return any(
        endpoint.cause is not None and bool(endpoint.cause.row.to_some_nodes)
        for one in answers
        if one.status is not None and one.problem is None
        for port in one.status.only(service).ports
        for endpoint in port.endpoints
    )


def with_reached(one: AllNodes, others: Sequence[AgentAnswer]) -> AllNodes:
    """Return one node's answer, with remedies that depend on which nodes the endpoints answer."""
    (answer,) = one.answers
    merged = merge(AllNodes((answer, *(one for one in others if one.node != answer.node))))
    of_node = (port for port in merged.ports if answer.node in port.members)
    ports = [_reached(port, port.members[answer.node]) for port in of_node]
    assert answer.status is not None
    status = structs.replace(answer.status, ports=ports)
    return replace(one, answers=(replace(answer, status=status),))


def _reached(port: MergedPort, own: PortFacts) -> PortFacts:
    extents = {one.address: (one.extent, one.away) for one in port.endpoints}

    def known(cause: Cause) -> Cause:
        return with_extent(cause, *extents.get(str(cause.get("at")), (Extent.NONE, 0)))

    causes = [known(cause) for cause in own.state.causes]
    hint = remedy_in(own, causes[0]) if causes else own.state.hint
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
