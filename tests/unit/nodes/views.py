"""Builds decoded responses of nodes, and a cluster with many problems."""

from __future__ import annotations

from typing import Any

import msgspec

from userspace_proxy.causes.cause import Cause, CauseCode, as_read
from userspace_proxy.causes.endpoints import refuses, silent
from userspace_proxy.causes.slices import none_local
from userspace_proxy.facts import EndpointFacts, PortFacts, SourceFacts
from userspace_proxy.facts.encoding import read_answer
from userspace_proxy.facts.node import PlanFacts
from userspace_proxy.status.answers import render_status
from userspace_proxy_kubectl.nodes.agent_answer import AgentAnswer, AllNodes
from userspace_proxy_kubectl.nodes.merged import Merged, MergedPort, merge
from userspace_proxy_kubectl.port_forward import ForwardTarget

from ..status.views import NOW, make_endpoint, make_port, make_view

POD, OTHER = "10.244.3.9:8080", "10.244.1.8:8080"
CUT_OFF = SourceFacts(
    "kubernetes",
    "https://10.0.0.1:6443",
    is_synced=True,
    problems=("cannot watch Services at https://10.0.0.1:6443: Connection refused",),
)
QUIET: dict[str, Any] = {"sent_at": 0.0, "connections": 0, "sent_bytes": 0, "received_bytes": 0}
"""The figures of a Service port that no client has used."""
ON_OTHERS = none_local(1, 0, "node-1", "externalTrafficPolicy")
PROBLEM = as_read(CauseCode(""), "no answer within 5 s")


def agent_on(node: str, name: str = "userspace-proxy") -> ForwardTarget:
    """Return the agent pod of a node."""
    return ForwardTarget("kube-system", f"{name}-{node}", 10249)


def answer_of(node: str, *ports: PortFacts, **changes: Any) -> AgentAnswer:
    """Return the answer of a node, decoded from JSON.

    Args:
        changes: Fields of the answer or of the facts, or the agent's ``now``.
    """
    own = {name: changes.pop(name) for name in AgentAnswer.__slots__ if name in changes}
    now = changes.pop("now", NOW)
    left_out = {name: changes.pop(name) for name in ("served",) if name in changes}
    given = {"plan": PlanFacts(1, "d" * 16, len(ports)), "started": NOW - 1000, **changes}
    view = make_view(*ports, node=node, **given)
    status = msgspec.structs.replace(read_answer(render_status(view, now=now)), **left_out)
    times = {"asked_at": NOW - 0.1, "answered_at": NOW}
    return AgentAnswer(node, **{"agents": (agent_on(node),), "status": status, **times, **own})


def without_answer(node: str, problem: Cause = PROBLEM, **changes: Any) -> AgentAnswer:
    """Return the answer of an unresponsive node."""
    return AgentAnswer(node, **{"agents": (agent_on(node),), "problem": problem, **changes})


def all_of(*answers: AgentAnswer, **changes: Any) -> AllNodes:
    """Return a cluster that consists of these nodes' answers."""
    return AllNodes(answers, **changes)


def answering(address: str = POD, **facts: Any) -> EndpointFacts:
    """Return an endpoint that has answered the node's clients."""
    known = {"connections": 3, "answered_at": NOW - 5, "sent_at": NOW - 5, "sent_bytes": 10}
    return make_endpoint(address, **{**known, **facts})


def failing(cause: Cause, **facts: Any) -> EndpointFacts:
    """Return a failing endpoint at the address in its cause."""
    return make_endpoint(str(cause.get("at")), cause=cause, **facts)


def untried(address: str = POD, **facts: Any) -> EndpointFacts:
    """Return an endpoint that the node hasn't dialled."""
    return make_endpoint(address, **facts)


def web(*endpoints: EndpointFacts, name: str = "web", **changes: Any) -> PortFacts:
    """Return a Service port with these endpoints that answered a client a second ago."""
    return make_port(name, endpoints=endpoints, **{"sent_at": NOW - 1, **changes})


def flows(name: str = "dns", *, unanswered: int = 0, address: str = POD) -> PortFacts:
    """Return a UDP Service port whose flows are all answered, or all unanswered."""
    endpoint = answering(address)
    if unanswered:
        endpoint = untried(address, connections=unanswered, unanswered_flows=unanswered)
    figures = {**QUIET, "connections": unanswered, "unanswered_flows": unanswered}
    return web(endpoint, name=name, protocol="UDP", **(figures if unanswered else {}))


def merged_of(*answers: AgentAnswer, **changes: Any) -> Merged:
    """Merge these answers."""
    return merge(all_of(*answers, **changes))


def one_port(*answers: AgentAnswer) -> MergedPort:
    """Merge these answers, and return their only Service port."""
    (port,) = merged_of(*answers).ports
    return port


def make_sick_cluster() -> AllNodes:
    """Return eight nodes, some unhealthy, with a failing endpoint and a broken path from node-6."""
    gone = refuses("10.244.9.9:80")
    answers = []
    for number in range(1, 7):
        endpoint = failing(silent(POD), node="node-3") if number == 6 else answering(node="node-3")
        changes: dict[str, Any] = {}
        if number == 2:
            changes = {"source": CUT_OFF}
        if number == 4:
            changes = {"version": "0.0.9", "settings": {"steering": "iptables"}}
        if number == 5:
            changes = {"behind": ("shop/web",), "now": NOW + 12}
        ports = (
            web(endpoint, answering(OTHER, node="node-1")),
            web(endpoint, name="api"),
            web(failing(gone), name="pay"),
            web(answering(OTHER, node="node-1"), name="cart"),
        )
        answers.append(answer_of(f"node-{number}", *ports, **changes))
    answers.append(without_answer("node-7"))
    missing = as_read(CauseCode(""), "no agent runs there")
    answers.append(without_answer("node-8", missing, agents=()))
    return all_of(*answers, digests={})


def at(now, *counts, started=NOW - 1000, **facts):
    """Return the merged view of nodes at this time, each with one of these connection counts."""
    answers = [
        answer_of(f"n{number}", web(answering(), connections=count, **facts), now=now, started=at_)
        for number, (count, at_) in enumerate(
            zip(counts, started if isinstance(started, list) else [started] * 9, strict=False)
        )
    ]
    return merged_of(*answers)
