"""Explains whether connections to a Service succeed, by steps, a sentence and the next command.

Rule 1: the worst step decides the sentence. Of equally bad steps, the first on the path decides;
ports whose clients fail precede other ports, and notes are last. Problems of the Service itself
precede problems of the node that may concern other Services.
Rule 2: the present tense means that clients were answered in the last minute.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from ..causes.cause import Cause
from ..causes.say import command, say
from ..diagnosis.clauses import joined, no_client_yet, served_by
from ..diagnosis.dated import also, cause_at, last_answer
from ..diagnosis.rules import is_silent, other_cause, served_clauses
from ..facts import WORST_FIRST, Level, PortFacts, PortState
from ..facts.units import capitalised, format_seconds
from .dial import Dials
from .explanation import Explanation, PathPart, PathStep, Subject
from .next_command import Invocation, next_command
from .steps import (
    ADDRESS,
    AGENT,
    FIREWALL,
    NOTE,
    SOURCE,
    UNREACHED,
    clients_show,
    firewalls_of,
    mistakes,
    node_steps,
    port_steps,
)

_NODE = "node"


def explain(
    subject: Subject,
    *,
    client: str = "",
    dials: Dials | None = None,
    pods: Sequence[PathStep] = (),
    invocation: Invocation | None = None,
) -> Explanation:
    """Return the explanation of connections to a Service: steps, result and next command.

    Args:
        client: The address of a client; empty for any client.
        dials: Results of dials; None if no dials were requested.
        pods: The steps about the Service's pods, and about slices that aren't made from pods.
        invocation: How the user ran the program; None for no flags, and this machine's proxy.
    """
    invocation = invocation or Invocation()
    family = "IPv6" if ":" in client else "IPv4"
    ports = [port for port in subject.ports if not client or port.family == family]
    whole = [*mistakes(subject), *pods]
    if client and subject.ports and not ports:
        whole.append(
            PathStep(Level.TROUBLE, "client", f"{subject.service} has no {family} address")
        )
    parts = [PathPart("", tuple(whole))] if whole else []
    if subject.node is not None:
        parts.append(PathPart(_NODE, tuple(node_steps(subject.node, subject, ports, client))))
    of_ports = [PathPart(title_of(p), tuple(port_steps(p, subject, client, dials))) for p in ports]
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
        _which(at if worst else _without_answer(ports, subject), ports),
        _sentence(worst, at, ports, subject, dials or {}),
        _first(steps, FIREWALL, "but ") if is_well and _may_lose(ports, subject) else "",
        _first(steps, NOTE),
        _mistakes(steps, ports, worst, at),
        "; nothing was dialled" if UNREACHED in steps else "",
    )
    shown = tuple(_as_shown(part, worst, invocation) for part in parts)
    return Explanation(
        service=subject.service,
        origin=subject.origin,
        level=level,
        sentence="".join(sentence),
        next=next_command(
            cause,
            subject,
            replace(invocation, has_dialled=dials is not None),
            pod=next((step.pod for step in pods if step.pod), ""),
        ),
        parts=shown,
    )


def _may_lose(ports: Sequence[PortFacts], subject: Subject) -> bool:
    """Return whether another program's chain may drop or translate packets of clients."""
    return bool(firewalls_of(subject.node, ports)) or any(port.doubt for port in ports)


def title_of(port: PortFacts) -> str:
    """Return a port's title with family and side: ``shop/web:http (IPv4, external)``."""
    words = [port.family, *([port.side] if port.side else [])]
    return f"{port.title} ({', '.join(words)})"


def _first_cause(ports: Sequence[PortFacts], subject: Subject, dials: Dials) -> Cause | None:
    """Return the cause that the next command investigates; None without a problem."""
    for port in sorted(ports, key=lambda port: (WORST_FIRST.index(port.state.level), _rank(port))):
        if (port.state.level is not Level.OK or port.doubt) and port.state.causes:
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
        ports: The Service's ports on this node; without any, problems of the node rank last.
    """
    ranks = {title_of(port): _rank(port) for port in ports}

    def order(one: tuple[str, PathStep]) -> tuple[bool, bool, bool, tuple[bool, ...]]:
        title, step = one
        is_of_others = title == _NODE and (not ports or step.topic in (SOURCE, AGENT))
        is_trouble = step.level is Level.TROUBLE
        return is_of_others, not is_trouble, step.topic == NOTE, ranks.get(title, ())

    steps = [(part.title, step) for part in parts for step in part.steps]
    wrong = [one for one in steps if one[1].level in (Level.TROUBLE, Level.ATTENTION)]
    return min(wrong, key=order)[1] if wrong else None


def _as_shown(part: PathPart, worst: PathStep | None, invocation: Invocation) -> PathPart:
    """Return a part with hints for the user's cluster, and a brief text only in the worst step."""
    steps = []
    for step in part.steps:
        words = next(filter(None, map(command, step.causes)), "")
        hint = invocation.kubectl(words) if words else step.hint
        steps.append(replace(step, hint=hint, brief=step.brief if step is worst else ""))
    return replace(part, steps=tuple(steps))


def _which(at: PortFacts | None, ports: Sequence[PortFacts]) -> str:
    """Return ``Port http, IPv4: ``, for what differs from served ports; empty if none is served."""
    if at is None or all(port is at or port.state.is_problem for port in ports):
        return ""
    names = [f"port {at.port}"] if any(port.port != at.port for port in ports) else []
    families = [at.family] if any(port.family != at.family for port in ports) else []
    sides = [at.side or "cluster IP"] if any(port.side != at.side for port in ports) else []
    words = ", ".join(filter(None, (*names, at.shared_number if names else "", *families, *sides)))
    return f"{capitalised(words)}: " if words else ""


def _sentence(
    worst: PathStep | None,
    at: PortFacts | None,
    ports: Sequence[PortFacts],
    subject: Subject,
    dials: Dials,
) -> str:
    if worst is None:
        return _served(ports, subject, dials)
    if worst.topic == NOTE:
        return f"{_served(ports, subject, dials)}; {worst.what}"
    other = _other_cause(worst, at)
    return worst.what if other is None else f"{worst.what}; besides, {say(other)}"


def _other_cause(worst: PathStep | None, at: PortFacts | None) -> Cause | None:
    """Return a further cause if the worst step is an address that isn't served; else None."""
    is_address = worst is not None and worst.topic == ADDRESS
    return other_cause(at) if at is not None and is_address else None


def _mistakes(
    steps: Sequence[PathStep],
    ports: Sequence[PortFacts],
    worst: PathStep | None,
    at: PortFacts | None,
) -> str:
    """Return users' mistakes that aren't stated yet, as the end of the sentence; or empty."""
    causes = [cause for port in ports for cause in port.notes if cause.code.traits.is_mistake]
    of_notes = (s for s in steps if s.topic == NOTE and s.level is Level.ATTENTION)
    causes += [cause for step in of_notes for cause in step.causes[:1]]
    other = _other_cause(worst, at)
    stated = {cause.fact for cause in (*(worst.causes if worst else ()), other) if cause}
    found = {cause.fact: cause for cause in causes}
    return also(list(found.values()), stated)


def _first(steps: Sequence[PathStep], topic: str, word: str = "") -> str:
    """Return the first neutral step of a topic as the end of the sentence, or empty."""
    found = (step.what for step in steps if step.topic == topic and step.level is None)
    what = next(found, "")
    return f"; {word}{what[0].lower()}{what[1:]}" if what else ""


def _served(ports: Sequence[PortFacts], subject: Subject, dials: Dials) -> str:
    """Return the sentence about a path without a failing step."""
    if not ports:
        return f"{subject.service} has no ports"
    for port in ports:
        has_failed = port.state.word is PortState.UNKNOWN and port.usable and not port.serving
        if port.state.word.expected or has_failed:
            return port.state.sentence
    served = [*_by_endpoints(ports, subject, dials), *_pinned(ports)]
    led = [] if subject.node is None else [port for port in ports if port.is_unseen]
    is_counted = all(port.kernel_connections is not None for port in led)
    if (
        led
        and is_counted
        and not any(port.connections or port.kernel_connections for port in ports)
    ):
        served.append(no_client_yet().text)
    dropped = {port.turned_away[0]: False for port in ports if port.turned_away}
    dropped |= {port.other_ports: False for port in ports if port.other_ports}
    dropped |= {cause: True for port in ports if (cause := port.policy_drops)}
    outside = f"clients from outside {'would be' if subject.node is None else 'are'} dropped: "
    for cause, is_from_outside in dropped.items():
        # Name the clients if the policy is the cause: only the cause of a source range names them.
        served.append(f"{outside if is_from_outside else ''}{cause_at(cause, subject.now)}")
    # Add the addresses that are served elsewhere by design.
    served += [say(one) for one in ports[0].notes if one.code.traits.is_by_design]
    return joined(served)


def _without_answer(ports: Sequence[PortFacts], subject: Subject) -> PortFacts | None:
    """Return the unanswered port that the sentence is about, or None if it is about all ports."""
    is_other = any(port.is_unseen or port.state.word.expected for port in ports)
    if is_other or subject.node is None:
        return None
    return next(filter(is_silent, ports), None)


def _by_endpoints(ports: Sequence[PortFacts], subject: Subject, dials: Dials) -> Iterator[str]:
    """Yield how many endpoints serve, or clauses if answers are unseen, missing or old."""
    led = [port for port in ports if port.is_unseen]
    about, shown = _without_answer(ports, subject), ""
    if led:
        about = min(led, key=lambda port: port.is_probed)
        used = [endpoint for port in led for endpoint in port.endpoints if endpoint.is_usable]
        # If the endpoints were dialled, no dial failed: a failure would decide the sentence.
        is_dialled = all(endpoint.address in dials for endpoint in used)
        shown = "dials from this machine" if is_dialled else ""
    elif all(port.is_without_answer or port.is_quiet for port in ports):
        about = about or max(ports, key=lambda port: port.sent_at)
    if about is not None and subject.node is not None:
        for clause in served_clauses(about, shown=shown):
            age = last_answer(about, subject.now) if clause.row.is_dated else ""
            yield f"{clause.text} ({age})" if age else clause.text
        return
    by = served_by(ports[0].serving, ports[0].standby)
    yield by.planned if subject.node is None else f"clients are {by.text}"


def _pinned(ports: Sequence[PortFacts]) -> Iterator[str]:
    """Yield a clause about session affinity if the first port has several usable endpoints."""
    for port in ports[:1]:
        if port.affinity_timeout_s is not None and port.usable > 1:
            within = format_seconds(port.affinity_timeout_s)
            yield f"each client keeps to one, until it is away for {within} (sessionAffinity)"
