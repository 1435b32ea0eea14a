"""Builds the steps of connections to a Service from the facts about it.

    Service ─▶ node: source, rules, firewalls ─▶ each port: addresses, client, endpoints, dials

Rule 1: causes are shown in their own words; this module only orders them.
Rule 2: the effect of another program's chain on a Service is known only roughly. If some clients
pass the chain, it may still drop other clients' packets. A recent first byte proves that a client
passes, but proves nothing about the client that the user asked about.
Rule 3: clients' results decide, not this program's dial, which has another source address, sends
nothing, and may fail for other reasons. The dial decides if no client has dialled lately. A machine
without a route to an address proves nothing, unless it is the proxy's node.
Rule 4: a dial proves only that connections are accepted (at a Service's address, by the proxy), not
that requests are answered. If clients fail anyway, the step states their failure and isn't marked
ok.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..causes.cause import Cause
from ..causes.say import Form, remedy, say
from ..diagnosis.clauses import and_standby, waiting_clients
from ..diagnosis.dated import cause_at, sentence_at, times_of
from ..diagnosis.incidents import remedy_in
from ..diagnosis.judge import cause_of
from ..diagnosis.paths import format_counted, format_path, format_probes
from ..diagnosis.problems import (
    changed_again,
    changed_by_others,
    problems_of_clients,
    problems_of_routes,
)
from ..diagnosis.rules import is_silent, other_cause
from ..facts import (
    LAST_MINUTE_S,
    EndpointFacts,
    FirewallFacts,
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
from ..model import contains, ip_of, is_loopback
from ..status.incident_words import names_in_line
from ..status.missing import is_known
from .dial import DialResult, Dials
from .explanation import PathStep, Subject
from .next_command import UNREPLIED

NOTE, FIREWALL, ADDRESS, SOURCE, AGENT = "note", "firewall", "address", "source", "agent"
"""Topics of steps that the sentence treats differently from others."""
_SERVICE, _DIAL = "service", "dial"
_ON_NODE = "on a node (--steering other than none)"
# The maximum number of endpoints shown; endpoints that don't serve are shown first.
ENDPOINTS_SHOWN = 20
# The length up to which the names of other Services with the same cause are shown.
NAMES_LENGTH = 100


def mistakes(subject: Subject) -> Iterator[PathStep]:
    """Yield steps about the whole Service: its invalid objects, then what isn't served."""
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


def node_steps(
    node: StatusFacts, subject: Subject, ports: Sequence[PortFacts], client: str
) -> Iterator[PathStep]:
    """Yield the steps about the node: its source, rules and routes, chains, shared causes."""
    source, steering, age_s = node.source, node.steering, node.last_state.age_s
    well = Level.OK if node.is_ready else None
    for one in problems_of_clients(node, subject.now):
        yield PathStep(one.level, AGENT, one.what, one.hint)
    if age_s is not None:
        age = format_seconds(age_s)
        state = f"the saved state is {age} old"
        what = f"Services haven't been read yet from {source.location}: {state}"
        yield PathStep(Level.TROUBLE, SOURCE, what)
    of_objects = {item.line for item in source.rejected}
    away = [problem for problem in source.problems if problem not in of_objects]
    for problem in away:
        yield PathStep(Level.TROUBLE, SOURCE, problem)
    yield from _others_rejected(subject.others_rejected)
    if not away and age_s is None:
        yield PathStep(well, SOURCE, f"Services are current, from {source.location}")
    if problem := node.sync.problem or steering.problem:
        yield PathStep(Level.TROUBLE, "rules", f"The kernel isn't as planned: {problem}")
    elif again := changed_again(steering):
        yield PathStep(Level.ATTENTION, "rules", again, changed_by_others(steering))
    elif steering.name == "none":
        yield PathStep(well, "rules", "None: clients dial the proxy's own listeners")
    else:
        repairs = f", {plural(steering.repairs, 'repair')} so far" if steering.repairs else ""
        what = f"{steering.name}: the kernel is as planned, compared every second{repairs}"
        yield PathStep(well, "rules", what)
    for one in problems_of_routes(node, {port.family for port in ports}):
        yield PathStep(one.level, "routes", one.what, one.hint)
    yield from _firewalls(node, ports, client, subject.now)
    for incident in node.incidents:
        is_of_several = len(incident.services) > 1 and subject.service in incident.services
        # An incident with a neutral mark is about a chain, which the step about firewalls states.
        if is_of_several and incident.cause is not None and incident.mark is not None:
            what = f"{say(incident.cause, Form.SHORT)}: {incident.affected}"
            yield PathStep(None, "cause", f"{what}: {names_in_line(incident, NAMES_LENGTH)}")


def _others_rejected(rejected: Sequence[RejectedFacts]) -> Iterator[PathStep]:
    """Yield steps about invalid objects of other Services, or of unknown Services."""
    for what, is_about in (("Not read", False), ("Rejected, of no concern here", True)):
        if items := [item for item in rejected if is_known(item) is is_about]:
            more = f" (and {len(items) - 1:,} more)" if len(items) > 1 else ""
            yield PathStep(None, SOURCE, f"{what}: {items[0].line}{more}")


def _firewalls(
    node: StatusFacts, ports: Sequence[PortFacts], client: str, now: float
) -> Iterator[PathStep]:
    """Yield a step for each chain or rule that may drop packets, or at most one if there is none.

    Args:
        client: The address of the client that the user asked about; empty for any client.
    """
    firewalls = firewalls_of(node, ports)
    for one in firewalls:
        # Answers of endpoints don't prove that their clients get them.
        is_passed = not (client or one.is_of_answers) and _has_answers(ports, one.family, now)
        drops = "may drop packets of other clients" if is_passed else "drops packets of Services"
        what = f"Chain {one.chain} of another program {drops}: {one.why}"
        yield PathStep(None if is_passed else Level.TROUBLE, FIREWALL, what, one.hint)
    # Look at the causes, too: a port's cause may blame a chain that isn't in the node's list.
    causes = [cause for port in ports for cause in port.state.causes]
    is_blamed = any(cause.get("chain") or cause.get("rule") for cause in causes)
    known = {one.chain for one in firewalls}
    for doubt in {port.doubt.fact: port.doubt for port in ports if port.doubt}.values():
        if doubt.get("chain") not in known:
            yield PathStep(None, FIREWALL, say(doubt), remedy(doubt))
    for rule in node.pod_rules_of(ports):
        yield PathStep(None, FIREWALL, rule.what, rule.hint)
        is_blamed = True
    if not firewalls and not is_blamed and node.steering.name != "none":
        what = "No chain of another program on this node is known to drop its packets"
        if any(port.is_unseen for port in ports):
            unknown = "chains at forward are read once its clients get no answer"
            yield PathStep(None, FIREWALL, f"{what}; {unknown}")
        else:
            # Rules that aren't followed may drop packets: only answers prove that no rule does.
            is_passed = all(port.state.level is Level.OK for port in ports)
            is_passed = is_passed and _has_answers(ports, "", now)
            yield PathStep(Level.OK if is_passed else None, FIREWALL, what)


def firewalls_of(node: StatusFacts | None, ports: Sequence[PortFacts]) -> Sequence[FirewallFacts]:
    """Return the chains that may drop packets of these Service ports."""
    families = {"", *(port.family for port in ports)}
    protocols = {"", *(port.protocol for port in ports)}
    known = node.firewalls if node is not None else ()
    return [one for one in known if one.family in families and one.protocol in protocols]


def _has_answers(ports: Sequence[PortFacts], family: str, now: float) -> bool:
    """Return whether endpoints have sent something in the last minute; "" is any family."""
    return any(
        family in ("", port.family) and now - endpoint.sent_at < LAST_MINUTE_S
        for port in ports
        for endpoint in port.endpoints
    )


def port_steps(
    port: PortFacts, subject: Subject, client: str, dials: Dials | None
) -> Iterator[PathStep]:
    """Yield the steps about one of the Service's ports."""
    if dials is not None and port.protocol != "TCP":
        # Ignore dials of a TCP port that has the same address or endpoints.
        dials = {}
    for frontend in port.frontends:
        # A plan isn't for one node, so loopback in it represents the addresses of every node.
        is_of_any = subject.node is None and is_loopback(ip_of(frontend.address))
        address = frontend.of_any_node if is_of_any else frontend.address
        what = f"{address}/{port.protocol}, {frontend.kind}"
        if not frontend.is_reached and subject.node is not None:
            why = say(port.state.causes[0]) if port.problem else frontend.target
            what = f"{what}, is not served: {why}"
            causes = port.state.causes[:1] if port.problem else ()
            yield PathStep(Level.TROUBLE, ADDRESS, what, causes=tuple(causes))
        else:
            is_proven = _mark(port) is not None and port.state.word is not PortState.REFUSED
            is_proven = is_proven and not any(cause.get("chain") for cause in port.state.causes)
            level = Level.OK if is_proven else None
            what = f"{what}: {frontend.target}" if frontend.target else what
            yield PathStep(level, ADDRESS, what)
        if dials is not None and (at := subject.dialled(frontend.address)) in dials:
            yield _dial_address(port, at, dials[at])
    if not port.has_default_path:
        yield _path(port, subject)
    if client:
        level, said = say_client(port, client)
        may_drop = port.doubt or firewalls_of(subject.node, [port])
        yield PathStep(None if may_drop and level is Level.OK else level, "client", said)
    yield _endpoints(port, subject.now)
    if port.waits.waiting and not port.state.word.waits:
        held = waiting_clients(port.waits.waiting, port.waits.longest_s, port.protocol)
        yield PathStep(Level.ATTENTION, "waiting", f"Waiting for an endpoint: {held}")
    yield from _others(port, subject.now)
    yield from node_notes(port, subject)
    if dials is not None:
        yield from _dials(port, dials, subject.now, is_planned=subject.node is None)


def _noted(port: PortFacts) -> list[Cause]:
    """Return the causes that neither the endpoints' step nor an endpoint's line states."""
    shown = {endpoint.cause.fact for endpoint in port.endpoints if endpoint.cause is not None}
    shown |= {port.doubt.fact} if port.doubt else set()
    # Show a second cause even if the sentence states it, because it has its own remedy.
    other = other_cause(port)
    if port.is_dropping or _is_sentence(port):
        shown |= {cause.fact for cause in port.state.stated} - {other and other.fact}
    return [cause for cause in port.state.causes if cause.fact not in shown]


def _others(port: PortFacts, now: float) -> Iterator[PathStep]:
    other = other_cause(port)
    for cause in _noted(port):
        # Mistakes, addresses and a second cause need attention; other notes are by design.
        traits = cause.code.traits
        is_wrong = traits.is_mistake or traits.is_of_address or cause.fact == (other and other.fact)
        level = Level.ATTENTION if is_wrong else Level.OK
        what, hint = cause_at(cause, now), remedy_in(port, cause)
        yield PathStep(level, NOTE, what, hint, is_by_design=not is_wrong, causes=(cause,))


def _is_sentence(port: PortFacts) -> bool:
    """Return whether the step about a port's endpoints repeats the sentence about its state."""
    return port.state.level is not Level.OK or port.state.word.waits or port.state.word.expected


def _mark(port: PortFacts) -> Level | None:
    return None if port.state.word is PortState.NOT_LOOKED_UP else port.mark


def _path(port: PortFacts, subject: Subject) -> PathStep:
    said = format_path(port.path, port.path_reason, port.path_since, subject.now)
    details = [format_counted(port)] if subject.node is not None else []
    if port.is_probed and subject.node is not None:
        details.append(format_probes(subject.node.probes))
    level = None if port.is_unseen else Level.OK
    below = tuple((level, detail) for detail in details if detail)
    hint = UNREPLIED if port.is_unseen and port.protocol == "UDP" else ""
    return PathStep(level, "path", said, hint, details=below)


def _endpoints(port: PortFacts, now: float) -> PathStep:
    total = len(port.endpoints)
    shown = sorted(port.endpoints, key=lambda endpoint: endpoint.serves)
    details: list[tuple[Level | None, str]] = [
        _endpoint(port, endpoint, now) for endpoint in shown[:ENDPOINTS_SHOWN]
    ]
    if total > len(details):
        details.append((None, f"and {total - len(details):,} more"))
    hint = port.state.hint
    if _is_sentence(port):
        # Show the times of the port's causes here: they have no lines of their own, unlike the
        # causes of endpoints.
        what, stated = sentence_at(port, now, port.client_mistakes), tuple(port.state.stated)
        used = f"{port.serving:,} of {total:,} used" if total else ""
        # Omit the state of a served port, because the mark already shows its problem.
        word = "" if used and port.state.word is PortState.SERVED else capitalised(port.state.word)
        hint = "" if hint in (remedy_in(port, one) for one in _noted(port)) else hint
        return PathStep(
            _mark(port),
            "endpoints",
            what,
            hint,
            tuple(details),
            causes=stated,
            brief=": ".join(filter(None, (word, used))),
        )
    if cause := port.policy_drops:
        what = f"{port.state.sentence}{times_of(cause, now)}"
        return PathStep(None, "endpoints", what, hint, tuple(details))
    saved = f"; {plural(port.saved, 'connection')} saved" if port.saved else ""
    policies = filter(None, (port.policy, format_limit(port.max_connections)))
    used = f"{port.serving:,} of {total:,} used{and_standby(port.standby)}"
    what = f"{'; '.join((used, *policies))}{saved}"
    # Omit the hint: notes have their own steps, and the next command dials endpoints.
    hint = "" if port.state.causes or port.is_unseen else hint
    return PathStep(port.mark, "endpoints", what, hint, tuple(details))


def _endpoint(port: PortFacts, endpoint: EndpointFacts, now: float) -> tuple[Level | None, str]:
    level = port.mark_of(endpoint)
    node = f" on {endpoint.node}" if endpoint.node else ""
    where = f"{endpoint.address}{node}"
    if endpoint.cause is not None:
        before = before_it_failed(endpoint, port.protocol)
        # Shorten the cause: it repeats the address, and other lines state possible reasons.
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
    """Return how an endpoint behaved before it failed; may be empty.

    A UDP flow can open without an endpoint, so only answers prove that the endpoint worked.
    """
    if endpoint.cause is None or not endpoint.connections:
        return ""
    if endpoint.cause.code.traits.accepts:
        return ""
    if protocol == "UDP":
        return "; it answered before" if endpoint.has_sent else ""
    answered = "answered clients, and " if endpoint.has_sent else ""
    return f"; it {answered}accepted {plural(endpoint.connections, 'connection')} before"


def say_client(port: PortFacts, client: str) -> tuple[Level, str]:
    """Return a level and a sentence: whether a client of the port's family is admitted, and why."""
    if port.admits is None or contains(port.admits, client):
        outside = f"; {port.policy}" if port.policy else ""
        who = "every client is" if port.admits is None else "its network is"
        return Level.OK, f"{client} is admitted: {who}{outside}"
    if port.is_dropping:
        return Level.ATTENTION, f"Packets from {client} are dropped: {port.state.sentence}"
    networks = ", ".join(port.admits or ()) or "no network"
    return Level.ATTENTION, f"Packets from {client} are dropped: only {networks} is admitted"


def node_notes(port: PortFacts, subject: Subject) -> Iterator[PathStep]:
    """Yield a note on how a node would serve a port, if the number of usable endpoints differs."""
    there = _there(port, subject)
    if there is not None:
        usable = {endpoint.address for endpoint in port.endpoints if endpoint.is_usable}
        lost = (e for e in there.endpoints if e.address in usable and not e.is_usable)
        details = tuple((None, f"{one.address}: {one.state}") for one in lost)
        yield PathStep(None, NOTE, f"{_ON_NODE} {there.planned}", there.state.hint, details)


def _there(port: PortFacts, subject: Subject) -> PortFacts | None:
    """Return a port's facts on a node where another number of endpoints is usable; else None."""
    same = (one for one in subject.on_node if _key(one) == _key(port))
    return next((one for one in same if one.usable != port.usable), None)


def _key(port: PortFacts) -> tuple[str, str, str]:
    return port.title, port.family, port.side


UNREACHED = PathStep(
    None,
    _DIAL,
    "Nothing was dialled: the proxy is in another network namespace, and this program can't enter "
    "it",
    "Run this as root on the proxy's node, or in its container if that has PIDs of its own",
)


def _dial_address(port: PortFacts, address: str, result: DialResult) -> PathStep:
    if result.cause is None:
        what = f"{address} accepts a connection {_after(result)}"
        if port.is_unseen or port.mark is Level.OK:
            return PathStep(Level.OK, _DIAL, what)
        return PathStep(None, _DIAL, f"{what}, as the proxy does before it dials")
    # Many Service addresses can be dialled only from nodes and pods, so other evidence decides.
    is_known = port.connections or port.admits is not None
    is_known = is_known or not (port.is_unseen or port.mark is Level.OK)
    level = None if is_known or result.has_no_route else Level.ATTENTION
    return PathStep(level, _DIAL, f"{address}, from this machine: {result.error}")


def clients_show(endpoint: EndpointFacts, now: float) -> bool:
    """Return whether clients' recent connections show whether the endpoint answers."""
    if endpoint.cause is not None:
        return not endpoint.is_past
    return endpoint.answered_at > 0 and now - endpoint.answered_at < LAST_MINUTE_S


def _level_of_failed(endpoint: EndpointFacts, now: float) -> Level | None:
    """Return the severity of a failed dial to a used endpoint; None if clients' results decide."""
    if clients_show(endpoint, now):
        return None
    was_answered = endpoint.cause is None and endpoint.answered_at
    return Level.ATTENTION if was_answered else Level.TROUBLE


def _beside_clients(endpoint: EndpointFacts, cause: Cause, now: float) -> str:
    """Return how a dial failed, compared with the clients' results."""
    if _is_as_clients(endpoint, cause):
        return ", as for clients"
    said = f": {say(cause)}"
    if endpoint.cause is not None:
        return f"{said}; clients: {say(endpoint.cause, Form.SHORT)}"
    if not endpoint.answered_at:
        return said
    age = format_seconds(max(0.0, now - endpoint.answered_at))
    return f"{said}; it accepted a connection {age} ago"


def _is_as_clients(endpoint: EndpointFacts, cause: Cause) -> bool:
    """Return whether clients failed for the same reason as the dial.

    If so, another step reports the remedy.
    """
    return endpoint.cause is not None and endpoint.cause.code is cause.code


def _dials(port: PortFacts, dials: Dials, now: float, *, is_planned: bool) -> Iterator[PathStep]:
    """Yield steps about the endpoints that were dialled, and about the other endpoints.

    Args:
        now: Unix time of the facts.
        is_planned: Whether the facts are from a plan, not from a proxy in whose network the dials
            were made.
    """
    if refused := sum(endpoint.is_refused for endpoint in port.endpoints):
        them = plural(refused, "endpoint")
        yield PathStep(None, _DIAL, f"{them} not dialled, because the proxy refuses to")
    dialled = [(e, dials[e.address]) for e in port.endpoints if e.address in dials]
    rest = sum(not e.is_refused and e.address not in dials for e in port.endpoints)
    if rest and dials and port.protocol == "TCP":
        them = plural(rest, "endpoint")
        yield PathStep(None, _DIAL, f"{them} not dialled, because the Service has so many")
    if not dialled:
        return
    used = [(endpoint, result) for endpoint, result in dialled if endpoint.is_usable]
    unrouted = [e for e, result in used if is_planned and result.has_no_route]
    failed = {
        endpoint.address: (_level_of_failed(endpoint, now), endpoint, result.cause)
        for endpoint, result in used
        if result.cause is not None and endpoint not in unrouted
    }
    # An endpoint that accepts connections may still fail its clients.
    accepting = [endpoint for endpoint, result in used if result.cause is None]
    unlike = [
        one for one in accepting if is_silent(port) or (one.cause is not None and not one.is_past)
    ]
    levels = {at: one[0] for at, one in failed.items()}
    levels |= {endpoint.address: None for endpoint in (*unrouted, *unlike)}
    details = tuple(
        _dial(endpoint, result, levels.get(endpoint.address, Level.OK))
        for endpoint, result in dialled
    )
    if failed:
        order = (*reversed(Level), None)
        level, endpoint, cause = min(failed.values(), key=lambda one: order.index(one[0]))
        brief = f"{len(failed):,} of {plural(len(used), 'used endpoint')} failed"
        what = f"{brief}{_beside_clients(endpoint, cause, now)}"
        hint = "" if _is_as_clients(endpoint, cause) else remedy(cause)
        yield PathStep(level, _DIAL, what, hint, details, brief=brief)
    elif unrouted:
        what = f"This machine has no route to {len(unrouted):,} of {plural(len(used), 'endpoint')}"
        yield PathStep(None, _DIAL, what, "Run this on a node, which has routes to pods", details)
    else:
        what = f"{plural(len(used), 'used endpoint')} dialled from this machine, without a failure"
        if not used:
            what = (
                f"{plural(len(dialled), 'endpoint')} dialled from this machine, none of them used"
            )
        if unlike:
            what = f"{what}: that shows only that connections are accepted, not that they work"
        yield PathStep(None if unlike else Level.OK, _DIAL, what, details=details)


def _dial(
    endpoint: EndpointFacts, result: DialResult, level: Level | None
) -> tuple[Level | None, str]:
    """Return a line about a dial, with ``level``, or attention if an unused endpoint failed."""
    used = "" if endpoint.is_usable else f" ({endpoint.state})"
    if result.cause is None:
        return level, f"{endpoint.address}{used}: accepts a connection {_after(result)}"
    return (
        level if endpoint.is_usable else Level.ATTENTION,
        f"{endpoint.address}{used}: {result.error} {_after(result)}",
    )


def _after(result: DialResult) -> str:
    # Show tenths of a millisecond, because most answers take less than a millisecond.
    return (
        f"after {result.seconds * 1000:.1f} ms"
        if result.seconds < 0.1
        else (f"after {format_seconds(result.seconds)}")
    )
