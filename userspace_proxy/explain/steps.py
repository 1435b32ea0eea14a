"""Turns the facts about a Service into a connection's steps, a sentence and a next command.

    Service ─▶ node: source, rules, firewalls ─▶ each port: addresses, client, endpoints, dials

Rule 1: causes are shown in their own words; this module only orders them.
Rule 2: the worst step decides the sentence. Of equally bad steps, the first on the path wins; ports
whose clients fail come before others, and notes last. Problems of the Service itself win over
problems of the node that may concern other Services.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from ..causes.cause import Cause
from ..causes.say import Form, command, remedy, say
from ..diagnosis.clauses import and_standby, waiting_clients
from ..diagnosis.dated import also, cause_at, sentence_at, times_of
from ..diagnosis.judge import cause_of
from ..diagnosis.paths import format_counted, format_path, format_probes
from ..diagnosis.problems import changed_again, changed_by_others
from ..diagnosis.rules import other_cause
from ..facts import (
    WORST_FIRST,
    EndpointFacts,
    Level,
    PortFacts,
    PortState,
    RejectedFacts,
    StatusFacts,
)
from ..facts.units import (
    capitalised,
    format_ejected,
    format_limit,
    format_seconds,
    plural,
)
from ..model import contains
from ..status.missing import is_known
from .dial_steps import (
    UNREACHED,
    Dials,
    clients_show,
    dial_address,
    dial_steps,
    with_hosts,
)
from .explanation import Explanation, PathPart, PathStep, Subject
from .firewalls import firewall_clause, firewall_steps
from .next_command import UNREPLIED, Invocation, next_command
from .served import policy_drops, served_sentence, without_answer

NOTE = "note"
_NODE, _SOURCE, _ADDRESS, _SERVICE = "node", "source", "address", "service"
_ON_NODE = "on a node (--steering other than none)"
# A Service may have a thousand endpoints; endpoints that don't serve are shown first.
ENDPOINTS_SHOWN = 20


def explain(
    subject: Subject,
    *,
    client: str = "",
    dials: Dials | None = None,
    pods: Sequence[PathStep] | None = None,
    invocation: Invocation | None = None,
) -> Explanation:
    """Return the steps of connections to a Service.

    Args:
        client: The address of a client; empty: any client.
        dials: Results of dials; None: none were requested.
        pods: The steps about the Service's pods; None: they weren't examined.
        invocation: How the user ran the program; None: the default, for this machine's proxy.
    """
    invocation = invocation or Invocation()
    dials = None if dials is None else with_hosts(subject.ports, dials)
    family = "IPv6" if ":" in client else "IPv4"
    ports = [port for port in subject.ports if not client or port.family == family]
    whole = [*mistakes(subject), *(pods or ())]
    if client and subject.ports and not ports:
        whole.append(
            PathStep(Level.TROUBLE, "client", f"{subject.service} has no {family} address")
        )
    parts = [PathPart("", tuple(whole))] if whole else []
    if subject.node is not None:
        parts.append(PathPart(_NODE, tuple(_node(subject.node, subject, ports, client))))
    of_ports = [PathPart(_title(p), tuple(_port(p, subject, client, dials))) for p in ports]
    parts += of_ports
    if dials is not None and not invocation.can_dial:
        parts.append(PathPart("", (UNREACHED,)))
    steps = [step for part in parts for step in part.steps]
    levels = {step.level for step in steps}
    level = next((one for one in WORST_FIRST if one in levels), Level.OK)
    worst = _worst(parts, ports)
    cause = _first_cause(ports, subject, dials or {})
    at = next((p for p, part in zip(ports, of_ports, strict=True) if worst in part.steps), None)
    is_well = worst is None or worst.topic == NOTE
    sentence = (
        _which(at if worst else without_answer(ports, subject), ports),
        _sentence(worst, at, ports, subject, dials or {}),
        firewall_clause(subject.node, ports, client, subject.now) if is_well else "",
        node_clause(ports, subject),
        _mistakes(steps, ports, worst, at),
        "; nothing was dialled" if UNREACHED in steps else "",
    )
    return Explanation(
        service=subject.service,
        origin=subject.origin,
        level=level,
        sentence="".join(sentence),
        next=next_command(
            cause,
            subject,
            replace(invocation, has_dialled=dials is not None, has_pods=pods is not None),
            pod=next((step.pod for step in pods or () if step.pod), ""),
        ),
        parts=tuple(_as_shown(part, worst, invocation) for part in parts),
    )


def _title(port: PortFacts) -> str:
    """Return the name with family and side, where these distinguish ports of that name."""
    words = [port.family, *([port.side] if port.side else [])]
    return f"{port.title} ({', '.join(words)})"


def _first_cause(ports: Sequence[PortFacts], subject: Subject, dials: Dials) -> Cause | None:
    """Return the cause for the next command to investigate, or None without a problem."""
    unhealthy = [port for port in ports if port.state.level is not Level.OK]
    for port in sorted(
        unhealthy, key=lambda port: (WORST_FIRST.index(port.state.level), _rank(port))
    ):
        if port.state.causes:
            return port.state.causes[0]
    for port in ports:
        for endpoint in port.endpoints:
            result = dials.get(endpoint.address)
            if not endpoint.is_usable or result is None or result.cause is None:
                continue
            if subject.node is None and result.has_no_route:
                continue
            if not clients_show(endpoint, subject.now):
                return result.cause
    return subject.ignored[0].cause if subject.ignored else None


def _rank(port: PortFacts) -> tuple[bool, bool]:
    """Return the sort key for ports of equal level: the worst for clients first."""
    return not port.state.is_problem, port.state.word in (PortState.SERVED, PortState.UNKNOWN)


def _worst(parts: Sequence[PathPart], ports: Sequence[PortFacts]) -> PathStep | None:
    """Return the step that decides the sentence, or None without a problem.

    Args:
        ports: The Service's ports here, whose clients depend on the node's rules.
    """
    ranks = {_title(port): _rank(port) for port in ports}
    steps = [(part.title, step) for part in parts for step in part.steps]
    steps.sort(key=lambda one: (one[1].topic == NOTE, *ranks.get(one[0], ())))
    own = [step for title, step in steps if title != _NODE or (ports and step.topic != _SOURCE)]
    for candidates in (own, [step for _, step in steps]):
        for level in (Level.TROUBLE, Level.ATTENTION):
            for step in candidates:
                if step.level is level:
                    return step
    return None


def _as_shown(part: PathPart, worst: PathStep | None, invocation: Invocation) -> PathPart:
    """Return a part whose commands ask the same cluster, and only the worst step is brief."""
    steps = []
    for step in part.steps:
        words = next(filter(None, map(command, step.causes)), "")
        hint = invocation.kubectl(words) if words else step.hint
        steps.append(replace(step, hint=hint, brief=step.brief if step is worst else ""))
    return replace(part, steps=tuple(steps))


def _which(one: PortFacts | None, ports: Sequence[PortFacts]) -> str:
    """Return the affected port, family or side, if others are served; or empty."""
    if one is None or all(port is one or port.state.is_problem for port in ports):
        return ""
    names = [f"port {one.port}"] if any(port.port != one.port for port in ports) else []
    families = [one.family] if any(port.family != one.family for port in ports) else []
    sides = [one.side or "cluster IP"] if any(port.side != one.side for port in ports) else []
    words = ", ".join(filter(None, (*names, one.shared_number if names else "", *families, *sides)))
    return f"{capitalised(words)}: " if words else ""


def _sentence(
    worst: PathStep | None,
    at: PortFacts | None,
    ports: Sequence[PortFacts],
    subject: Subject,
    dials: Dials,
) -> str:
    if worst is None:
        return served_sentence(ports, subject, dials)
    if worst.topic == NOTE:
        return f"{served_sentence(ports, subject, dials)}; {worst.what}"
    other = _other_cause(worst, at)
    return worst.what if other is None else f"{worst.what}; besides, {say(other)}"


def _other_cause(worst: PathStep | None, at: PortFacts | None) -> Cause | None:
    """Return why clients would fail even if they reached the port; None if they wouldn't."""
    is_address = worst is not None and worst.topic == _ADDRESS
    return other_cause(at) if at is not None and is_address else None


def _mistakes(
    steps: Sequence[PathStep],
    ports: Sequence[PortFacts],
    worst: PathStep | None,
    at: PortFacts | None,
) -> str:
    """Return users' mistakes, to be added to the sentence of the worst step."""
    found = {note.fact: note for port in ports for note in port.notes}
    mistakes = {fact: note for fact, note in found.items() if note.code.traits.is_mistake}
    for step in steps:
        if step.topic == NOTE and step.level is Level.ATTENTION and step.causes:
            mistakes.setdefault(step.causes[0].fact, step.causes[0])
    other = _other_cause(worst, at)
    stated = () if worst is None else worst.causes
    said = (*stated, *([] if other is None else [other]))
    return also(list(mistakes.values()), {cause.fact for cause in said})


def _node(
    node: StatusFacts, subject: Subject, ports: Sequence[PortFacts], client: str
) -> Iterator[PathStep]:
    source, steering, age_s = node.source, node.steering, node.last_state.age_s
    if age_s is not None:
        age = format_seconds(age_s)
        what = f"Services haven't been read yet from {source.location}: the last state is {age} old"
        yield PathStep(Level.TROUBLE, _SOURCE, what)
    of_objects = {item.line for item in source.rejected}
    away = [problem for problem in source.problems if problem not in of_objects]
    for problem in away:
        yield PathStep(Level.TROUBLE, _SOURCE, problem)
    yield from _others_rejected(subject.others_rejected)
    if not away and age_s is None:
        yield PathStep(Level.OK, _SOURCE, f"Services are current, from {source.location}")
    if problem := node.sync.problem or steering.problem:
        yield PathStep(Level.TROUBLE, "rules", f"The kernel isn't as planned: {problem}")
    elif again := changed_again(steering):
        yield PathStep(Level.ATTENTION, "rules", again, changed_by_others(steering))
    elif steering.name == "none":
        yield PathStep(Level.OK, "rules", "None: clients dial the proxy's own listeners")
    else:
        repairs = f", {plural(steering.repairs, 'repair')} so far" if steering.repairs else ""
        what = f"{steering.name}: the kernel is as planned, compared every second{repairs}"
        yield PathStep(Level.OK, "rules", what)
    yield from firewall_steps(node, ports, client, subject.now)


def _others_rejected(rejected: Sequence[RejectedFacts]) -> Iterator[PathStep]:
    """Yield unreadable objects that may or may not be about the Service."""
    for what, is_about in (("Not read", False), ("Rejected, of no concern here", True)):
        if items := [item for item in rejected if is_known(item) is is_about]:
            more = f" (and {len(items) - 1:,} more)" if len(items) > 1 else ""
            yield PathStep(None, _SOURCE, f"{what}: {items[0].line}{more}")


def _port(
    port: PortFacts, subject: Subject, client: str, dials: Dials | None
) -> Iterator[PathStep]:
    for frontend in port.frontends:
        what = f"{frontend.address}/{port.protocol}, {frontend.kind}"
        if not frontend.is_reached and subject.node is not None:
            why = say(port.state.causes[0]) if port.problem else frontend.target
            what = f"{what}, is not served: {why}"
            causes = port.state.causes[:1] if port.problem else ()
            yield PathStep(Level.TROUBLE, _ADDRESS, what, causes=tuple(causes))
        else:
            level = None if _mark(port) is None else Level.OK
            what = f"{what}: {frontend.target}" if frontend.target else what
            yield PathStep(level, _ADDRESS, what)
        if dials is not None and frontend.address in dials:
            yield dial_address(port, frontend.address, dials[frontend.address])
    if not port.has_default_path:
        yield _path(port, subject)
    if client:
        level, said = say_client(port, client)
        yield PathStep(level, "client", said)
    yield _endpoints(port, subject.now)
    if port.waits.waiting and not port.state.word.waits:
        held = waiting_clients(port.waits.waiting, port.waits.longest_s, port.protocol)
        yield PathStep(Level.ATTENTION, "waiting", f"Waiting for an endpoint: {held}")
    yield from _others(port, subject.now)
    yield from node_notes(port, subject)
    if dials is not None:
        yield from dial_steps(port, dials, subject.now, is_planned=subject.node is None)


def _others(port: PortFacts, now: float) -> Iterator[PathStep]:
    """Yield the causes that neither the endpoints' step nor an endpoint's line states."""
    shown = {endpoint.cause.fact for endpoint in port.endpoints if endpoint.cause is not None}
    other = other_cause(port)
    # A second cause has its own remedy.
    second = None if other is None else other.fact
    if port.is_dropping or _is_sentence(port):
        shown |= {cause.fact for cause in port.state.stated} - {second}
    for cause in port.state.causes:
        if cause.fact in shown:
            continue
        # Only notes about users' mistakes need attention; other notes are by design.
        traits = cause.code.traits
        is_wrong = traits.is_mistake or traits.is_of_address or cause.fact == second
        level = Level.ATTENTION if is_wrong else Level.OK
        yield PathStep(level, NOTE, cause_at(cause, now), remedy(cause), causes=(cause,))


def _is_sentence(port: PortFacts) -> bool:
    """Return whether its step about endpoints is the sentence about its state."""
    return port.state.level is not Level.OK or port.state.word.waits or port.state.word.expected


def _mark(port: PortFacts) -> Level | None:
    return None if port.state.word is PortState.NOT_LOOKED_UP else port.mark


def _path(port: PortFacts, subject: Subject) -> PathStep:
    said = format_path(port.path, port.path_reason, port.path_since, subject.now)
    details = [format_counted(port)]
    if port.is_probed and subject.node is not None:
        details.append(format_probes(subject.node.probes))
    below = tuple((Level.OK, detail) for detail in details if detail)
    hint = UNREPLIED if port.is_unseen and port.protocol == "UDP" else ""
    return PathStep(Level.OK, "path", said, hint, details=below)


def _endpoints(port: PortFacts, now: float) -> PathStep:
    total = len(port.endpoints)
    shown = sorted(port.endpoints, key=lambda endpoint: endpoint.serves)
    details: list[tuple[Level | None, str]] = [
        _endpoint(port, endpoint, now) for endpoint in shown[:ENDPOINTS_SHOWN]
    ]
    if total > len(details):
        details.append((Level.OK, f"and {total - len(details):,} more"))
    hint = port.state.hint
    if _is_sentence(port):
        # Unlike an endpoint's cause, this cause has no line of its own.
        what, stated = sentence_at(port, now, port.client_mistakes), tuple(port.state.stated)
        used = f": {port.serving:,} of {total:,} used" if total else ""
        return PathStep(
            _mark(port),
            "endpoints",
            what,
            hint,
            tuple(details),
            causes=stated,
            brief=f"{capitalised(port.state.word)}{used}",
        )
    if cause := policy_drops(port):
        what = f"{port.state.sentence}{times_of(cause, now)}"
        return PathStep(None, "endpoints", what, hint, tuple(details))
    saved = f"; {plural(port.saved, 'connection')} saved" if port.saved else ""
    policies = filter(None, (port.policy, format_limit(port.max_connections)))
    used = f"{port.serving:,} of {total:,} used{and_standby(port.standby)}"
    what = f"{'; '.join((used, *policies))}{saved}"
    # Notes have their own steps, and the next command dials.
    hint = "" if port.state.causes or port.is_unseen else hint
    return PathStep(port.mark, "endpoints", what, hint, tuple(details))


def _endpoint(port: PortFacts, endpoint: EndpointFacts, now: float) -> tuple[Level | None, str]:
    level = endpoint.level
    node = f" on {endpoint.node}" if endpoint.node else ""
    where = f"{endpoint.address}{node}"
    if endpoint.cause is not None:
        before = before_it_failed(endpoint, port.protocol)
        # Most causes begin with the address, and possible reasons are stated above or below.
        is_said = _is_sentence(port) and any(c.row is endpoint.cause.row for c in port.state.stated)
        form = Form.SHORT_PREDICATE if is_said else Form.PREDICATE
        return level, f"{where}: {cause_at(endpoint.cause, now, form)}{before}"
    if endpoint.ejected_for_s is not None:
        return level, f"{where}: {format_ejected(endpoint.ejected_for_s)}"
    if endpoint.is_usable:
        count = f", {plural(endpoint.connections, 'connection')}" if endpoint.connections else ""
        preference = f", {endpoint.preference}" if endpoint.preference else ""
        return level, f"{where}: {endpoint.state}{preference}{count}"
    return level, f"{where}: {endpoint.state}"


def before_it_failed(endpoint: EndpointFacts, protocol: str) -> str:
    """Return what a failing endpoint did before it failed; empty if nothing.

    A UDP flow needs no endpoint: only answers prove that the endpoint was there.
    """
    if endpoint.cause is None or not endpoint.connections:
        return ""
    if endpoint.cause.code.traits.accepts:
        return ""
    if protocol == "UDP":
        return "; it answered before" if endpoint.has_sent else ""
    answered = "answered clients, and " if endpoint.has_sent else ""
    return f"; it {answered}accepted {plural(endpoint.connections, 'connection')} before"


def mistakes(subject: Subject) -> Iterator[PathStep]:
    """Yield the mistakes that concern the whole Service, the worst first."""
    for cause in map(cause_of, subject.rejected):
        yield PathStep(Level.TROUBLE, _SERVICE, say(cause), remedy(cause))
    for item in subject.ignored:
        which = f"Port {item.port} is" if item.port else "It is"
        yield PathStep(
            Level.TROUBLE if item.is_conflict else Level.ATTENTION,
            _SERVICE,
            f"{which} not served: {say(item.cause)}",
            remedy(item.cause),
            is_by_design=not item.is_conflict,
        )


def node_notes(port: PortFacts, subject: Subject) -> Iterator[PathStep]:
    """Yield how a node would serve a Service port's clients, if that differs."""
    there = _there(port, subject)
    if there is not None:
        usable = {endpoint.address for endpoint in port.endpoints if endpoint.is_usable}
        lost = (e for e in there.endpoints if e.address in usable and not e.is_usable)
        details = tuple((None, f"{one.address}: {one.state}") for one in lost)
        yield PathStep(None, NOTE, f"{_ON_NODE} {there.planned}", there.state.hint, details)


def node_clause(ports: Iterable[PortFacts], subject: Subject) -> str:
    """Return how a node would serve the first such port, to end the sentence; or empty."""
    found = filter(None, (_there(port, subject) for port in ports))
    first = next(found, None)
    return "" if first is None else f"; {_ON_NODE} {first.planned}"


def _there(port: PortFacts, subject: Subject) -> PortFacts | None:
    """Return a Service port's facts on a node; None if it has the same endpoints there."""
    same = (one for one in subject.on_node if _key(one) == _key(port))
    return next((one for one in same if one.usable != port.usable), None)


def _key(port: PortFacts) -> tuple[str, str, str]:
    return port.title, port.family, port.side


def say_client(port: PortFacts, client: str) -> tuple[Level, str]:
    """Return whether a client of the port's family is admitted, and why."""
    if port.admits is None or contains(port.admits, client):
        outside = f"; {port.policy}" if port.policy else ""
        who = "every client is" if port.admits is None else "its network is"
        return Level.OK, f"{client} is admitted: {who}{outside}"
    if port.is_dropping:
        return Level.ATTENTION, f"Packets from {client} are dropped: {port.state.sentence}"
    networks = ", ".join(port.admits or ()) or "no network"
    return Level.ATTENTION, f"Packets from {client} are dropped: only {networks} is admitted"
