"""Plans Services without a running proxy, and returns the facts that its JSON would contain."""

from __future__ import annotations

from collections.abc import Sequence

from ..cluster import Snapshot
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
from ..model import CauseCode
from ..plan import Planner, PortPlan
from ..policy import PolicyOptions
from ..policy.node_facts import make_facts, options_with
from ..status.answers import make_answer
from ..status.port_state import judge
from ..status.selection import Selection
from ..status.service_mistakes import with_mistakes

# This machine need not be the node, so node ports are planned at the Node's addresses, or else only
# at these.
_LOOPBACK = ("127.0.0.1", "::1")


def plan_status(
    snapshot: Snapshot,
    options: PolicyOptions,
    *,
    now: float,
    steering: str,
    rejected: Sequence[RejectedFacts] = (),
    problems: Sequence[str] = (),
) -> StatusFacts:
    """Return the answer of ``/api/v1/status`` that a proxy with these Services would give.

    Args:
        steering: That of the proxy; ``none``: endpoints on loopback and at ClusterIPs are allowed.
        rejected: Objects with a mistake, which aren't in the snapshot.
        problems: What can't be read, one line each.
    """
    options = options_with(steering, options)
    addresses = snapshot.node.addresses if snapshot.node else ()
    plan = Planner(make_facts(options, snapshot, (*addresses, *_LOOPBACK))).plan(snapshot)
    source = SourceFacts(is_synced=True, problems=problems, rejected=rejected)
    facts = StatusFacts(
        node=options.node_name,
        started=now,
        revision=plan.revision,
        source=source,
        steering=SteeringState("none"),
        sync=SyncFacts(last_done=now),
        ports=with_mistakes([*map(_port, plan.ports.values())], source, judge=_judge),
        ignored=facts_of_ignored(plan.ignored),
    )
    return make_answer(facts, now=now, selection=Selection())


def _port(plan: PortPlan) -> PortFacts:
    frontends, endpoints = (
        map(facts_of_frontend, in_order(plan.frontends)),
        map(facts_of_verdict, plan.verdicts),
    )
    facts = facts_of_plan(plan, frontends, endpoints)
    facts.state = _judge(facts)
    return facts


def _judge(port: PortFacts) -> StateFacts:
    cause = port.cause
    if cause is not None and cause.code is CauseCode.NAME_UNRESOLVED and not port.is_holding:
        # No plan looks names up: only a proxy finds out whether clients are served.
        sentence = f"Clients would be served once {cause.object} is looked up"
        return StateFacts(Level.OK, PortState.NOT_LOOKED_UP, sentence, way_out=cause.hint)
    state = judge(port)
    if state.word is not PortState.UNKNOWN or port.is_unseen:
        return state
    # A plan has no clients yet.
    return StateFacts(
        state.level, PortState.SERVED, state.sentence, state.causes, state.way_out, state.code
    )
