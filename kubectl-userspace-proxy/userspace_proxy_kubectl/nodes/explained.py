"""Adds the nodes' reports to the explanation of a Service.

    planned from the API server ─▶ Explanation ──┬─▶ Explanation with a part about the nodes
    answers of agents ─▶ merged, differences ────┘

Rule 1: if nodes show a problem that is at least as bad as the plan's, the sentence is about it.
Rule 2: a node counts as different from the plan only after it has lagged for a while; its answer
shows the difference.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

from userspace_proxy.causes.cause import Cause, CauseCode
from userspace_proxy.causes.endpoints import dropped_here, node_silent
from userspace_proxy.causes.nodes import cut_off, listed, not_answered, path_fails
from userspace_proxy.causes.say import command, kubectl_words, object_of, remedy
from userspace_proxy.causes.slices import no_slice
from userspace_proxy.diagnosis.incidents import remedy_in
from userspace_proxy.explain import Explanation, Invocation, PathStep
from userspace_proxy.explain.explanation import PathPart
from userspace_proxy.explain.pods import SLICES
from userspace_proxy.explain.sentence import title_of
from userspace_proxy.explain.steps import ADDRESS, ENDPOINTS_SHOWN, FIREWALL, NAMES_LENGTH, SOURCE
from userspace_proxy.facts import WORST_FIRST, Level, PortFacts, PortState, worst
from userspace_proxy.facts.units import plural
from userspace_proxy.model import ip_of
from userspace_proxy.model.quoting import shown
from userspace_proxy.plan.digest import FORM
from userspace_proxy.status.incident_words import names_in_line

from .agent_answer import AgentAnswer, AllNodes
from .agent_causes import agent_restarts
from .differences import PlanDifference, differences
from .endpoints import Extent, same_cause
from .findings import NodeFinding
from .merged import LATE_HINT, Merged, MergedPort
from .words import (
    format_all,
    format_endpoint,
    format_excluded,
    format_finding,
    format_incident,
    format_port,
    on_nodes,
)

TITLE = "on all nodes"
_NODES, _SERVED, _PLAN, _ENDPOINTS = "nodes", "clients", "plan", "endpoints"
_GROUPS_SHOWN = 5
_UNREACHED = (
    PortState.NOT_SERVED, PortState.PARTLY_SERVED, PortState.DROPPED, PortState.REFUSED,
)  # fmt: skip
_OF_NODES = (node_silent, path_fails, cut_off, not_answered, dropped_here)
_OF_ALL = (CauseCode.FIREWALL_DROPS, CauseCode.NOT_LISTENING, CauseCode.SOURCE_AWAY)


def with_nodes(
    explanation: Explanation,
    merged: Merged,
    behind: Sequence[PathStep],
    *,
    invocation: Invocation,
    planned: Sequence[PortFacts] | None = None,
) -> Explanation:
    """Return the plan's explanation, extended and updated with what nodes report.

    Args:
        planned: The Service's ports as planned now; None if the API server can't be read.
        merged: The merged answers of all nodes about this Service.
        behind: The result of :func:`behind_steps`.
        invocation: The user's command, from which the next command is derived.
    """
    late = [step.what for step in behind if step.level is Level.TROUBLE]
    current = None if planned is None else {one.address for of in planned for one in of.endpoints}
    fail = {
        part.title
        for part in explanation.parts
        for step in part.steps
        if step.topic == _ENDPOINTS and step.level in (Level.ATTENTION, Level.TROUBLE)
    }
    served = [
        _before(step) if step.level is Level.OK and title_of(port.first) in fail else step
        for port in merged.ports
        for step in (_served(port, merged, invocation, current),)
    ]
    if late or merged.silent:
        served = [replace(one, level=None) if one.level is Level.OK else one for one in served]
    rules = tuple(_pod_rules(merged))
    steps = (_answers(merged), *served, *_of_several(merged), *rules, *behind)
    nodes_level = worst(step.level for step in steps if step.level is not None)
    level = worst((explanation.level, nodes_level))
    sentence, next_one = _verdict(explanation, merged, invocation)
    found = (
        *_silence(merged),
        *(format_finding(one, merged.now) for one in merged.findings if _is_of_all(one)),
    )
    sentence = "; ".join((sentence, *late, *found, *(step.what for step in rules[:1])))
    ports = {title_of(port.first): port for port in merged.ports}
    proved = (_proved(part, ports.get(part.title)) for part in explanation.parts)
    return replace(
        explanation,
        level=level,
        sentence=sentence,
        next=next_one,
        parts=(*proved, PathPart(TITLE, steps)),
    )


def _verdict(explanation: Explanation, merged: Merged, invocation: Invocation) -> tuple[str, str]:
    """Return the sentence about the plan or the nodes, whichever is worse, and the next command."""
    unhealthy = [port for port in merged.ports if port.level is not Level.OK]
    sentence, next_one = explanation.sentence, explanation.next
    if unhealthy and WORST_FIRST.index(unhealthy[0].level) <= WORST_FIRST.index(explanation.level):
        sentence = f"{unhealthy[0].key}: {format_port(unhealthy[0], merged)}"
        next_one = _next(unhealthy[0], merged, explanation.service, invocation)
    elif explanation.level is Level.OK:
        port = next((one for one in merged.ports if one.unserved), None)
        sentence = _sentence(merged, explanation, port)
        if port is not None:
            next_one = invocation.again(explanation.service, f"--node={next(iter(port.unserved))}")
        lost = (one.cause for one in merged.findings if not merged.silent.isdisjoint(one.nodes))
        if words := next((kubectl_words(one, explanation.service) for one in lost), ""):
            next_one = invocation.kubectl(words)
    steps = (step for of in explanation.parts for step in of.steps if step.topic == SLICES)
    if any(step.level is not None for step in steps):
        # The pods of these endpoints may not exist, so only the slices show more.
        service = explanation.service.partition(":")[0]
        next_one = invocation.kubectl(kubectl_words(no_slice(service, "", ""), service))
    return sentence, next_one


def _before(step: PathStep) -> PathStep:
    """Return a step without OK marks, because the plan shows later problems with endpoints."""
    details = tuple((None if level is Level.OK else level, says) for level, says in step.details)
    return replace(step, level=None, what=f"{step.what} when they answered", details=details)


def _proved(part: PathPart, port: MergedPort | None) -> PathPart:
    """Return a planned part, with OK marks only for what nodes show.

    Args:
        port: The Service port on all nodes; None if no node has it.
    """
    mark, groups, endpoints = (port.mark, port.groups, port.endpoints) if port else (None, (), ())
    is_reached = mark is not None and all(group.state not in _UNREACHED for group in groups)
    proven = {ADDRESS: is_reached, _ENDPOINTS: mark is Level.OK}
    well = [one.address for one in endpoints if one.level is Level.OK]
    answers = tuple(f"{address}{end}" for address in well for end in ": ")

    def proved(step: PathStep) -> PathStep:
        if step.topic not in proven:
            return step
        details = tuple(
            (None if level is Level.OK and not says.startswith(answers) else level, says)
            for level, says in step.details
        )
        is_open = step.level is Level.OK and not proven[step.topic]
        return replace(step, level=None if is_open else step.level, details=details)

    return replace(part, steps=tuple(map(proved, part.steps)))


def with_plan(
    explanation: Explanation, behind: Sequence[PathStep], services: Sequence[str]
) -> Explanation:
    """Return an explanation of one node's answer, adding whether it matches the plan.

    Args:
        behind: The result of :func:`behind_steps`.
        services: All Services with which the node lags behind the API server.
    """
    level = worst((explanation.level, *(step.level for step in behind if step.level is not None)))
    late = [step.what for step in behind if step.level is Level.TROUBLE]
    return replace(
        explanation,
        level=level,
        sentence="; ".join((explanation.sentence, *late)),
        parts=(
            *(
                replace(part, steps=tuple(_compared(step, services) for step in part.steps))
                for part in explanation.parts
            ),
            PathPart("", tuple(behind)),
        ),
    )


def _compared(step: PathStep, services: Sequence[str]) -> PathStep:
    """Return a step that doesn't show the node's Services as current if some lag behind."""
    if not services or step.topic != SOURCE or step.level is not Level.OK:
        return step
    what = f"behind the API server: {listed(tuple(map(shown, services)), 3)}"
    return replace(step, level=None, what=what)


def behind_steps(
    service: str, planned: Sequence[PortFacts] | None, all_nodes: AllNodes
) -> tuple[PathStep, ...]:
    """Return steps: which nodes differ from the plan and how, which match, which aren't compared.

    Args:
        service: ``namespace/name``, optionally with ``:port``.
        planned: Its Service ports, planned from API objects; None if the objects can't be read.
    """
    key = service.partition(":")[0]
    # The plan of an agent that is shutting down serves no client.
    answers = (one for one in all_nodes.answers if one.problem is None)
    known = [one for one in answers if one.status is not None and not one.status.is_draining]
    found: dict[tuple[PlanDifference, ...], list[str]] = {}
    for answer in known:
        if key in answer.behind:
            found.setdefault(_differences(service, planned, answer), []).append(answer.node)
    steps = [
        PathStep(
            Level.TROUBLE,
            _PLAN,
            f"not as planned {on_nodes(nodes, len(known))}",
            details=tuple((Level.TROUBLE, str(one)) for one in differing[:_GROUPS_SHOWN]),
        )
        for differing, nodes in sorted(found.items(), key=lambda item: -len(item[1]))
    ]
    unknown = [one.node for one in known if not _is_compared(one)]
    late = sum(map(len, found.values()))
    current = len(known) - len(unknown) - late
    if all_nodes.digests is None:
        steps.append(PathStep(None, _PLAN, "not compared: the API server's Services can't be read"))
    elif current > 0:
        level = None if planned is not None and not planned else Level.OK
        steps.append(PathStep(level, _PLAN, f"as planned on {plural(current, 'node')}"))
    if unknown and all_nodes.digests is not None:
        where = on_nodes(unknown, len(known))
        why = "another version, or Services not from an API server"
        steps.append(PathStep(None, _PLAN, f"not compared {where}: {why}"))
    return tuple(steps[: _GROUPS_SHOWN + 2])


def _is_compared(answer: AgentAnswer) -> bool:
    """Return whether an agent publishes the digests with which its plan is compared."""
    plan = answer.status.plan if answer.status is not None else None
    return plan is not None and plan.form == FORM and bool(plan.digest)


def _differences(
    service: str, planned: Sequence[PortFacts] | None, answer: AgentAnswer
) -> tuple[PlanDifference, ...]:
    if planned is None or answer.status is None:
        return ()
    # A summary suffices, because it includes the ports of a requested Service.
    return differences(planned, answer.status.only(service).ports)


def _answers(merged: Merged) -> PathStep:
    total, answered = len(merged.nodes), len(merged.answered)
    lacking = merged.silent.union(*(port.missing for port in merged.ports))
    missing = [
        one for one in merged.findings if not lacking.isdisjoint(one.nodes) or _is_of_all(one)
    ]
    what = f"{answered:,} of {plural(total, 'node')} answered"
    if answered == total:
        what = f"{format_all(total)} answered" if total > 1 else "the node answered"
    level, excluded = worst(one.level for one in missing), format_excluded(merged)
    return PathStep(
        None if excluded and level is Level.OK else level,
        _NODES,
        "; ".join(filter(None, (what, excluded))),
        next(filter(None, (remedy(one.cause) for one in missing)), ""),
        details=tuple(
            (one.level, format_finding(one, merged.now)) for one in missing[:_GROUPS_SHOWN]
        ),
    )


def _silence(merged: Merged) -> Iterator[str]:
    """Yield why nodes show nothing about their clients; nothing if all nodes answered."""
    if merged.silent:
        known = [one for one in merged.findings if not merged.silent.isdisjoint(one.nodes)]
        count = plural(len(merged.silent), "node")
        yield format_finding(known[0], merged.now) if known else f"no answer from {count} yet"


def _is_of_all(finding: NodeFinding) -> bool:
    """Return whether clients of any Service may fail on a node because of a finding."""
    return finding.cause.code in _OF_ALL or finding.cause.row is agent_restarts


def _served(
    port: MergedPort, merged: Merged, invocation: Invocation, current: Collection[str] | None
) -> PathStep:
    what = f"{port.key}: {format_port(port, merged, port.causes_of_endpoints)}"
    cause = _cause(port)
    hint = remedy_in(port.first, cause) if cause is not None else port.hint
    paths = (one.keys for one in merged.incidents if one.cause.row in _OF_NODES)
    if cause is not None and any(same_cause(cause) in keys for keys in paths):
        hint = ""  # The step about the cause contains it.
    if _is_behind(port, merged):
        hint = LATE_HINT
    elif words := cause and command(cause):
        hint = invocation.kubectl(words)
    return PathStep(port.mark, _SERVED, what, hint, details=tuple(_endpoints(port, current)))


def _of_several(merged: Merged) -> Iterator[PathStep]:
    """Yield a step for each incident of a node, path or rule, or of several Services.

    An incident of several Services with a neutral mark has a step only if a node, path or
    rule fails.
    """
    for one in merged.incidents:
        what = format_incident(one, merged.now, len(merged.answered))
        hint = remedy(one.cause) if one.cause.row in _OF_NODES else ""
        if len(one.incident.services) > 1 and one.incident.mark is not None:
            what = f"{what}: {names_in_line(one.incident, NAMES_LENGTH)}"
        elif not hint:
            continue
        yield PathStep(None, "cause", what, hint)


def _pod_rules(merged: Merged) -> Iterator[PathStep]:
    """Yield a step for each rule on a pod's node that may drop packets of its failing endpoint."""
    failing = (e for p in merged.ports for e in p.endpoints if e.failing)
    for node, ip in dict.fromkeys((e.node, ip_of(e.address)) for e in failing):
        # Use only rules of the pod's own node: rules of other nodes don't concern the pod.
        rules = (rule for (at, _), rule in merged.pod_rules.items() if at == node)
        if rule := next((one for one in rules if one.is_about(ip)), None):
            yield PathStep(None, FIREWALL, f"on {shown(node)}, {rule.what}", rule.hint)


def _cause(port: MergedPort) -> Cause | None:
    """Return the first cause of the worst nodes, or of the endpoint concerned; None without one."""
    cause = next((cause for group in port.groups for cause in group.causes), None)
    if cause is None:
        return None
    of_endpoints = (tuple(one for one, _ in endpoint.failing) for endpoint in port.endpoints)
    same = (found for found in of_endpoints if same_cause(cause) in map(same_cause, found))
    return next(same, (cause,))[0]


def _is_behind(port: MergedPort, merged: Merged) -> bool:
    """Return whether a port fails only on nodes that lag behind the API server with its Service."""
    nodes = [node for group in port.groups for node in group.nodes]
    return bool(nodes) and merged.are_late(port.key.of_service, nodes)


def _next(port: MergedPort, merged: Merged, service: str, invocation: Invocation) -> str:
    """Return the command that shows more about an unhealthy Service port."""
    cause = None if _is_behind(port, merged) else _cause(port)
    if cause is not None and cause.is_of_pods and not invocation.has_pods:
        return invocation.again(service, "--pods")
    is_path = any(one.extent is Extent.PATH for one in port.endpoints)
    if cause is not None and not (is_path or cause.is_of_way):
        about = object_of(cause)
        pod = next((one.pod for one in port.endpoints if one.address == about), "")
        if words := kubectl_words(cause, service, pod):
            return invocation.kubectl(words)
    return invocation.again(service, f"--node={port.groups[0].nodes[0]}")


def _endpoints(
    port: MergedPort, current: Collection[str] | None
) -> Iterator[tuple[Level | None, str]]:
    """Yield a Service port's endpoints; ``current`` are the API server's addresses, if known."""
    for endpoint in port.endpoints[:ENDPOINTS_SHOWN]:
        is_foreign = bool(endpoint.failing) and not endpoint.host
        pod = " (its EndpointSlice names no pod)" if is_foreign else ""
        pod = f" (pod {shown(endpoint.pod)})" if endpoint.pod else pod
        if current is not None and endpoint.address not in current:
            pod += "; no EndpointSlice lists it any more"
        yield endpoint.level, f"{format_endpoint(endpoint)}{pod}"
    if (more := len(port.endpoints) - ENDPOINTS_SHOWN) > 0:
        yield None, f"and {plural(more, 'more endpoint')}"


def _sentence(merged: Merged, explanation: Explanation, unserved: MergedPort | None) -> str:
    """Return the sentence for a healthy plan on healthy nodes.

    Args:
        unserved: The first Service port some of whose clients got no answer; None if there is none.
    """
    if not merged.ports:
        return explanation.sentence
    port = unserved or merged.ports[0]
    return f"{explanation.sentence}; {format_port(port, merged)}"
