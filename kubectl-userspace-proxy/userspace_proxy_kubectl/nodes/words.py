"""Renders sentences about all nodes: which nodes are affected, which aren't, which are unknown.

    refused on node-7 and node-31 (2 of 120): 10.244.3.9:8080 refuses connections; served on 118
    only node-7 can't reach 10.244.3.9:80: it does not answer; the other 117 that tried are answered

Rule 1: ``causes.say`` renders causes; this module adds only the nodes.
Rule 2: "all" means all nodes with an answer, and for endpoints all nodes that tried them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

from userspace_proxy.causes.cause import Cause, When
from userspace_proxy.causes.endpoints import denies, denies_on, dropped_here
from userspace_proxy.causes.nodes import listed, not_answered, path_fails
from userspace_proxy.causes.say import Form, say
from userspace_proxy.diagnosis.dated import last_answer, times_of
from userspace_proxy.facts import Level, PortFacts
from userspace_proxy.facts.units import in_order, plural
from userspace_proxy.model.quoting import shown
from userspace_proxy.status.incident_words import since

from .endpoints import Extent, MergedEndpoint, NodesByCause, has_tried, same_cause
from .findings import NodeFinding
from .incidents import MergedIncident
from .merged import Merged, MergedPort, NodeGroup

# The maximum number of causes in a Service port's text, so that the text is bounded.
_CAUSES = 2
_STATES = 3
# The maximum length of an agent's text in a sentence; agents may send longer texts.
_LONGEST = 400


class _Counts(NamedTuple):
    """The number of nodes that tried an endpoint, by result."""

    tried: int
    answered: int
    away: int
    """The number of answered nodes, without the endpoint's own node."""
    unknown: int
    """The number of nodes without a failure that got no answer after others began to fail."""
    left_out: int
    """The number of nodes whose answers don't show whether they tried the endpoint."""


def format_excluded(merged: Merged) -> str:
    """Return which nodes have no agent by design; empty if none."""
    names = listed(tuple(map(shown, merged.excluded)))
    return f"no agent on {names}, which the DaemonSet excludes" if names else ""


def on_nodes(nodes: Sequence[str], total: int, word: str = "on") -> str:
    """Return ``on node-7 and node-31 (2 of 120)`` or ``on all 120 nodes``.

    Args:
        total: The number of nodes with an answer.
        word: The preposition.
    """
    if len(nodes) >= total > 1:
        return f"{word} {format_all(total)}"
    return f"{word} {listed(nodes)}{f' ({len(nodes):,} of {total:,})' if total > 1 else ''}"


def format_finding(finding: NodeFinding, now: float) -> str:
    """Return a finding with its nodes, as a sentence without a full stop."""
    cause = finding.cause.replace(within=listed(finding.nodes, 3))
    return f"{_cut(say(cause))}{times_of(cause, now)}"


def format_port(port: MergedPort, merged: Merged, above: Collection[object] = ()) -> str:
    """Return how a Service port is served on all nodes, as clauses.

    Args:
        above: Causes already shown, as keys from ``same_cause``.
    """
    total = len(merged.answered)
    parts = list(_by_state(port, total, above))
    before = port.served_before
    served = port.proven - before
    those = format_all(total)
    if total < len(merged.nodes):
        those = f"{'the one node' if total == 1 else those} that answered"
    if served:
        some = f"{served:,}{'' if port.groups else f' of {total:,}'}"
        on = those if served == total and len(merged.nodes) > 1 else some
        parts.append(f"served on {on}{_age(port, merged.now)}")
    if before:
        parts.append(f"served on {before:,} before the last minute")
    for why, count in port.neutral:
        where = f" on {those}" if count == total > 1 else f" on {count:,}"
        parts.append(f"{why}{where if total > 1 else ''}{_evidence(port, why, total, above)}")
    parts += _denials(port, total, merged.now)
    if port.missing:
        parts.append(f"not known {on_nodes(port.missing, total)}")
    return "; ".join(parts)


def format_endpoint(endpoint: MergedEndpoint) -> str:
    """Return which nodes an endpoint answers, and which it doesn't, as clauses."""
    quiet = set(endpoint.tried) - set(endpoint.answered)
    unknown = quiet.difference(*(nodes for _, nodes in endpoint.failing))
    answered = len(endpoint.answered), endpoint.away
    counts = _Counts(len(endpoint.tried), *answered, len(unknown), endpoint.left_out)
    if not counts.tried:
        if endpoint.doubts:
            return f"{endpoint.address} fails clients on the kernel path"
        if endpoint.is_unseen:
            return (
                f"{endpoint.address}: not known whether it answers; the kernel sends clients there"
            )
        return f"{endpoint.address} has not been tried"
    if not endpoint.failing:
        if not endpoint.usable:
            return f"{endpoint.address} is used by no node that answered"
        if not quiet:
            but = ", but not all clients of the last minute" if endpoint.doubts else ""
            return f"{endpoint.address} answers {_that_tried(counts)}{but}"
        if not endpoint.answered:
            tried = _that_tried(counts)
            if endpoint.sums.connections and not endpoint.sums.sent_bytes:
                return f"{endpoint.address} has sent nothing back to {tried}"
            return f"{endpoint.address}: not known whether it answers; {tried}"
        answers = f"{endpoint.address} answers {listed(endpoint.answered)}"
        return f"{answers}; not known whether it answers {listed(sorted(quiet, key=in_order))}"
    return _seen(endpoint.failing, counts, endpoint.address, endpoint.extent)


def format_incident(one: MergedIncident, now: float, total: int) -> str:
    """Return an incident in one line: the fault, its nodes, its effects, and when it began.

    Args:
        total: The number of nodes with an answer.
    """
    facts, at = one.incident, str(one.cause.get("at"))
    is_shared = len(facts.endpoints) > 1 and one.cause.row.shared is not None
    services, endpoints = plural(len(facts.services), "Service"), len(facts.endpoints)
    services = shown(facts.services[0]) if len(facts.services) == 1 else services
    affected = facts.affected_of(services)
    if one.cause.row in (path_fails, not_answered):
        what, affected = f"{_say(one.cause)} {on_nodes(one.nodes, total, 'from')}", services
    elif is_shared and one.cause.row is dropped_here:
        words = f"{_say(one.cause, Form.SHORT_PREDICATE)}, seen {on_nodes(one.nodes, total)}"
        what, affected = f"each of {endpoints:,} endpoints {words}", services
    elif one.extent is Extent.NONE or is_shared or not at:
        what = f"{_say(one.cause, by=listed(one.nodes))}, seen {on_nodes(one.nodes, total)}"
    else:
        unknown = one.tried - one.answered - len(one.nodes)
        counts = _Counts(one.tried, one.answered, one.away, unknown, one.left_out)
        what = _seen(one.failing, counts, at, one.extent)
    return f"{what}: {', '.join(filter(None, (affected, since(facts, now))))}"


def _age(port: MergedPort, now: float) -> str:
    """Return `` (last answer 2 min ago)`` about all nodes; empty if lately or unknown."""
    if port.groups or port.left_out:
        return ""
    known = (one for one in port.members.values() if one.mark is Level.OK)
    latest = max(known, key=lambda one: (not one.is_quiet, one.sent_at))
    age = last_answer(latest, now)
    return f" ({age})" if age else ""


def _evidence(port: MergedPort, why: str, total: int, above: Collection[object]) -> str:
    """Return ``: …``, what happened to clients on nodes with a neutral mark; or empty.

    Args:
        why: The reason for the mark.
        above: See :func:`format_port`.
    """
    unserved = {node: one for node, one in port.unserved.items() if one.neutral_reason == why}
    dropped = {node: one for node, one in unserved.items() if one.is_dropping}
    if packets := sum(max(0, c.count) for one in dropped.values() for c in one.turned_away):
        where = listed(sorted(dropped, key=in_order))
        return f": {plural(packets, 'packet')} of clients on {where}"
    quiet = {node: one.connections for node, one in unserved.items() if one.is_without_answer}
    count = sum(max(0, one) for one in quiet.values())
    if not count or any(one.doubt for one in unserved.values()):
        causes = {node: _doubt(one) for node, one in unserved.items()}
        found = {node: cause for node, cause in causes.items() if cause is not None}
        if all(same_cause(cause) in above for cause in found.values()):
            return ""
        return f": {_say(next(iter(found.values())))}{_unless_all(found, total)}"
    unit, noun = ("datagram", "flow") if port.first.protocol == "UDP" else ("byte", "connection")
    where = _unless_all(quiet, total)
    return f": no {unit} has come back in {plural(count, noun)}{where}"


def _denials(port: MergedPort, total: int, now: float) -> Iterator[str]:
    """Yield why some clients get no answer, or got none, on nodes that serve others as intended."""
    found: dict[object, tuple[Cause, list[str]]] = {}
    for node, one in port.members.items():
        for cause in one.state.stated if one.mark is Level.OK else ():
            # Notes about the Service have no count: the plan's steps show them.
            if cause.count:
                found.setdefault(same_cause(cause), (cause, []))[1].append(node)
    for cause, nodes in islice(found.values(), _CAUSES):
        age = times_of(cause, now) if cause.when is When.PAST else ""
        yield f"{_say(cause, by=listed(nodes))}{age}{_unless_all(nodes, total)}"


def _doubt(port: PortFacts) -> Cause | None:
    """Return the first known reason, current or past, for clients without an answer; or None."""
    past = next((one.cause for one in port.endpoints if one.cause is not None), None)
    return port.doubt or port.last_minute.cause or past or port.other_ports


def _unless_all(nodes: Collection[str], total: int) -> str:
    """Return the nodes after a space and ``on``; empty if these are all ``total`` nodes."""
    return "" if len(nodes) == total else f" {on_nodes(sorted(nodes, key=in_order), total)}"


def _by_state(port: MergedPort, total: int, above: Collection[object]) -> Iterator[str]:
    """Yield a clause for each state that isn't ok, with its nodes and causes."""
    found: dict[tuple[Level, str], list[NodeGroup]] = {}
    for group in port.groups:
        found.setdefault((group.level, group.state.word), []).append(group)
    for (_, state), groups in islice(found.items(), _STATES):
        nodes = [node for group in groups for node in group.nodes]
        where = on_nodes(sorted(nodes, key=in_order), total)
        said = "; ".join(_causes(port, groups, len(nodes), above))
        yield f"{shown(state) or 'not served'} {where}{_at_endpoints(port, groups, said)}"
    if more := sum(
        len(group.nodes) for one in islice(found.values(), _STATES, None) for group in one
    ):
        yield f"otherwise on {more:,} more"


def _at_endpoints(port: MergedPort, groups: Sequence[NodeGroup], said: str) -> str:
    """Return ``, at 2 of 4 endpoints`` if the causes are about several, and what is ``said``."""
    members = [port.members[node] for group in groups for node in group.nodes]
    usable = [one for member in members for one in member.endpoints if one.is_usable]
    causes = {one.address: one.cause for one in usable if one.cause is not None}
    silent = {one.silent_endpoints: one.unanswered for one in members if one.silent_endpoints}
    count, end = max((len(causes), *silent)), f": {said}" if said else ""
    about = {*causes, *(cause.get("at") for cause in silent.values() if cause is not None)}
    stated = {c.get("at") for group in groups for c in group.causes}
    if count < 2 or about.isdisjoint(stated):
        return end
    total = plural(len(addresses := {one.address for one in usable}), "endpoint")
    if said and stated <= addresses == causes.keys():
        # Naming one of several that fail alike would suggest that the others don't.
        tried = [one.cause for one in usable if has_tried(one)]
        texts = {_say(one, Form.SHORT_PREDICATE) for one in tried if one}
        are_own = all(one and one.row.is_predicate and not one.get("client") for one in tried)
        if are_own and len(texts) == 1:
            return f": each of its {total} {texts.pop()}"
    are_alike = len({cause.code for cause in causes.values()}) < 2
    return f", at {count:,} of {total}{'' if are_alike else ' for different reasons'}{end}"


def _causes(
    port: MergedPort, groups: Sequence[NodeGroup], total: int, above: Collection[object]
) -> Iterator[str]:
    """Yield some nodes' causes for a state, omitting causes that are already shown."""
    nodes: dict[object, int] = {}
    causes: dict[object, Cause] = {}
    for group in groups:
        for cause in group.causes:
            same = same_cause(cause)
            nodes[same] = nodes.get(same, 0) + len(group.nodes)
            causes.setdefault(same, cause)
    if not causes and groups[0].sentence:
        yield _cut(groups[0].sentence)
    left = [same for same in causes if same not in above]
    left.sort(key=lambda same: -nodes[same])
    endpoints = port.endpoints if left else ()
    here = {node for group in groups for node in group.nodes}
    # State which nodes tried an endpoint only if this isn't obvious and the endpoint fails now on
    # one of these nodes, not only in the last minute.
    by_address = {
        one.address: one
        for one in endpoints
        if _is_uneven(one, port) and any(here & {*nodes} for _, nodes in one.failing)
    }
    texts: dict[str, None] = {}
    for same in left:
        cause = causes[same]
        if (endpoint := by_address.get(str(cause.get("at")))) is not None:
            # Add this text once per endpoint, because it contains all of the endpoint's causes.
            texts[format_endpoint(endpoint)] = None
        else:
            of = f" ({plural(nodes[same], 'node')})" if nodes[same] < total else ""
            texts[f"{_say(cause, by=plural(nodes[same], 'node'))}{of}"] = None
    yield from islice(texts, _CAUSES)
    if (more := len(texts) - _CAUSES) > 0:
        yield plural(more, "further cause")


def _is_uneven(endpoint: MergedEndpoint, port: MergedPort) -> bool:
    """Return whether the text must state which nodes tried an endpoint."""
    if endpoint.extent in (Extent.PATH, Extent.SOME, Extent.TIMES):
        return True
    is_known = bool(endpoint.failing) and not endpoint.left_out
    return is_known and len(endpoint.tried) < port.served + port.unhealthy


def _seen(failing: NodesByCause, counts: _Counts, at: str, extent: Extent) -> str:
    """Return an endpoint's faults, the nodes that see each, and how many nodes are answered."""
    tried, answered, away, unknown, left_out = counts
    (cause, first), *others = failing
    nodes = {node for _, those in failing for node in those}
    are_all = len(nodes) + (answered or unknown) == tried and not left_out
    count = answered or unknown
    those = "the other " if are_all else ""
    those += "one that tried" if count == 1 else f"{count:,} that tried"
    is_steady = extent is not Extent.TIMES
    only = "only " if len(nodes) <= away and is_steady else ""
    by = listed(first)
    lone = ", no other node tries it" if are_all and tried == 1 else ""
    lone = lone if is_steady else ", perhaps at random"
    parts = [f"{_say(cause, by=by)} (seen {only}by {_or_all(first, counts)}{lone})"]
    if not others and answered and extent is Extent.PATH and cause.code.traits.is_dial:
        it = "it " if cause.row.is_predicate else ""
        verb = "can't reach" if cause.when is When.NOW else "couldn't reach"
        parts = [f"{only}{by} {verb} {at}: {it}{_say(cause, Form.SHORT_PREDICATE)}"]
    for other, seen_by in others[: _CAUSES - 1]:
        form = Form.SHORT_PREDICATE if other.get("at") == cause.get("at") else Form.SHORT
        parts.append(
            f"{_say(other, form, listed(seen_by))} (seen {only}by {_or_all(seen_by, counts)})"
        )
    if (more := len(others) - (_CAUSES - 1)) > 0:
        parts.append(plural(more, "further cause"))
    if answered and not away:
        parts.append("its own node is answered")
    elif answered:
        parts.append(f"{those} {'is' if count == 1 else 'are'} answered")
    elif unknown:
        parts.append(f"{those} {'has' if count == 1 else 'have'} not tried since")
    return "; ".join(parts)


def _or_all(nodes: Sequence[str], counts: _Counts) -> str:
    is_all = len(nodes) == counts.tried > 1 and not counts.left_out
    return _that_tried(counts) if is_all else listed(nodes)


def _that_tried(counts: _Counts) -> str:
    if counts.left_out:
        return f"{plural(counts.tried, 'node')} that tried it"
    return f"{'the one node' if counts.tried == 1 else format_all(counts.tried)} that tried it"


def format_all(total: int) -> str:
    """Return ``both nodes`` or ``all 120 nodes``."""
    return f"{'both' if total == 2 else f'all {total:,}'} nodes"


def _say(cause: Cause, form: Form = Form.SHORT, by: str = "") -> str:
    """Return a cause's sentence, in which ``by`` replaces ``this node``."""
    if cause.row is denies and by:
        at, client = (str(value) for _, value in cause.params)
        cause = denies_on(at, client, by).replace(**cause.modifiers())
    return _cut(say(cause, form))


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
