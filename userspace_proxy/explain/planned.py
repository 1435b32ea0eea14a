"""Plans Services without a running proxy, and returns the facts that a proxy's JSON would have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ..causes.cause import CauseCode
from ..causes.say import object_of, remedy
from ..cluster import Snapshot
from ..diagnosis.clauses import not_looked_up, planned_of
from ..diagnosis.judge import diagnose, state_of
from ..diagnosis.rules import PortVerdict, decide
from ..facts import (
    Level,
    PortFacts,
    PortState,
    RejectedFacts,
    SourceFacts,
    StateFacts,
    StatusFacts,
    SteeringState,
    SyncFacts,
    facts_of_frontend,
    facts_of_ignored,
    facts_of_plan,
    facts_of_verdict,
    in_order,
)
from ..plan import Planner
from ..policy import PolicyOptions, Scope
from ..policy.node_facts import make_facts, no_node_reason, options_with
from ..status.answers import make_answer
from ..status.selection import Selection

# Node ports are also planned at these addresses, because the addresses of the node may be unknown.
_LOOPBACK = ("127.0.0.1", "::1")
_ITS_OWN = "on each node only its own endpoints, and without one, clients are dropped"
_ON_EACH = {Scope.LOCAL: _ITS_OWN, Scope.LOCAL_FROM_OUTSIDE: f"from outside: {_ITS_OWN}"}


def plan_status(
    snapshot: Snapshot,
    options: PolicyOptions,
    *,
    now: float,
    steering: str,
    rejected: Sequence[RejectedFacts] = (),
    problems: Sequence[str] = (),
) -> StatusFacts:
    """Return the answer that a proxy with these Services would send to ``/api/v1/status``.

    Without a node name in the options, each endpoint is judged as on its own node.

    Args:
        steering: The proxy's steering; ``none`` allows endpoints on loopback and at ClusterIPs.
        rejected: Invalid objects, which aren't in the snapshot.
        problems: The read errors, one line each.
    """
    options = options_with(steering, options)
    addresses = snapshot.node.addresses if snapshot.node else ()
    of_node = make_facts(options, snapshot, (*addresses, *_LOOPBACK))
    plan = Planner(replace(of_node, is_any_node=not options.node_name)).plan(snapshot)
    ports = [
        facts_of_plan(
            port,
            map(facts_of_frontend, in_order(port)),
            map(facts_of_verdict, port.verdicts),
        )
        for port in plan.ports.values()
    ]
    for port, planned in zip(ports, plan.ports.values(), strict=True):
        if not options.node_name:
            port.policy = _ON_EACH.get(planned.scope, "")
    source = SourceFacts(is_synced=True, problems=problems, rejected=rejected)
    facts = StatusFacts(
        node=options.node_name,
        no_node=no_node_reason(snapshot.node),
        started=now,
        revision=plan.revision,
        source=source,
        steering=SteeringState("none"),
        sync=SyncFacts(last_done=now),
        ports=diagnose(ports, source, judge=_judge),
        ignored=facts_of_ignored(plan.ignored),
    )
    return make_answer(facts, now=now, selection=Selection())


def _judge(port: PortFacts) -> StateFacts:
    verdict = _decide(port)
    port.planned = planned_of(verdict.clauses)
    state = state_of(port, verdict)
    if verdict.state is PortState.NOT_LOOKED_UP and port.cause is not None:
        # A plan never resolves names, so the unresolved name isn't a problem.
        return StateFacts(state.level, state.word, state.sentence, hint=remedy(port.cause))
    return state


def _decide(port: PortFacts) -> PortVerdict:
    cause = port.cause
    if cause is not None and cause.code is CauseCode.NAME_UNRESOLVED and not port.is_holding:
        # A plan doesn't look up names: only a running proxy knows whether clients are served.
        clause = not_looked_up(object_of(cause))
        return PortVerdict(Level.OK, PortState.NOT_LOOKED_UP, (clause,))
    _, verdict = decide(port)
    is_seen = verdict.state is PortState.UNKNOWN and not port.is_unseen
    # A plan has no clients, so the port counts as served even without answers to clients.
    return verdict._replace(state=PortState.SERVED) if is_seen else verdict
