"""Detects endpoints that leave UDP flows of some nodes unanswered while they answer other nodes.

    node-1, node-2: answered ──┐
    node-3: nothing came back ─┴▶ node-3: "sends no datagram back", as if its agent reported it

Rule 1: on one node alone, a silent endpoint looks like a protocol without answers (syslog); the
answers on another node show the difference.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from msgspec.structs import replace

from userspace_proxy.causes.cause import Cause
from userspace_proxy.causes.endpoints import no_datagram
from userspace_proxy.diagnosis.clauses import FEW
from userspace_proxy.facts import EndpointFacts, Level, PortFacts, PortState, StateFacts

from .agent_answer import AgentAnswer
from .endpoints import last_answer


def with_unanswered(answers: Sequence[AgentAnswer]) -> Sequence[AgentAnswer]:
    """Return the answers, with causes for endpoints that send datagrams only to other nodes."""
    known = [one.status for one in answers if one.status is not None and one.problem is None]
    udp = [(one, port) for one in known for port in one.ports if port.protocol == "UDP"]
    answered: dict[object, float] = {}
    for _, port in udp:
        for one in port.endpoints:
            key = _at(port, one)
            answered[key] = max(last_answer(one), answered.get(key, 0.0))
    silent = {
        id(port): new
        for status, port in udp
        if (new := _judged(port, answered, status.started)) is not port
    }
    if not silent:
        return answers
    return [
        one
        if one.status is None
        else dataclasses.replace(
            one,
            status=replace(one.status, ports=[silent.get(id(p), p) for p in one.status.ports]),
        )
        for one in answers
    ]


def _at(port: PortFacts, endpoint: EndpointFacts) -> object:
    return port.namespace, port.service, port.port, port.side, endpoint.address


def _judged(port: PortFacts, answered: Mapping[object, float], started: float) -> PortFacts:
    """Return the facts; in an unknown state, add causes for endpoints that answer other nodes.

    Args:
        answered: Unix time of each endpoint's last answer to any node; 0 without one.
        started: Unix time of the agent's start; older answers show nothing about its flows.
    """
    if port.state.word is not PortState.UNKNOWN:
        return port
    causes: list[Cause] = []
    endpoints = []
    for one in port.endpoints:
        is_silent = one.is_usable and not one.has_sent and one.unanswered_flows > FEW
        if is_silent and answered[_at(port, one)] > started:
            causes.append(no_datagram(one.address).replace(count=one.unanswered_flows))
            one = replace(one, cause=causes[-1])
        endpoints.append(one)
    if not causes:
        return port
    state = StateFacts(Level.ATTENTION, PortState.UNANSWERED, causes=causes, code=causes[0].code)
    return replace(port, endpoints=endpoints, state=state)
