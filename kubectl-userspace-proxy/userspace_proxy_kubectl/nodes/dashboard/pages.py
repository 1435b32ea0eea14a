"""Renders all pages except the pages of Services and the map.

Rule 1: a page is bounded in size: a list has pages, or states how many items it omits.
Rule 2: sentences come from ``nodes.words``; this module only selects and counts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from msgspec import structs

from userspace_proxy.causes.cause import CauseCode, as_read
from userspace_proxy.causes.say import Form, say
from userspace_proxy.facts import WORST_FIRST, IncidentFacts, Level, PortFacts, StatusFacts
from userspace_proxy.facts.units import (
    format_bytes,
    format_count,
    format_seconds,
    plural,
)
from userspace_proxy.status.incident_words import MAY_LOSE
from userspace_proxy.status.markup import Affected, Parts
from userspace_proxy.status.page import PORTS_A_PAGE
from userspace_proxy.status.rows import DOTS_SHOWN, FIGURES, Row, columns_of, figures_of
from userspace_proxy.status.search import Search
from userspace_proxy.status.selection import Selection, id_of, part_of, with_query

from ..agent_causes import no_api_server
from ..endpoints import MergedEndpoint
from ..growth import in_order
from ..incidents import MergedIncident
from ..merged import LATE_HINT, Merged, MergedPort, mark_of
from ..rows import NodeRow
from ..subset import found_in
from ..sums import NOTHING
from ..words import format_excluded, format_incident, format_port
from .client_calls import AllCalls
from .lately import Minute
from .live import CALLS_OF_NODES_MAX
from .look import (
    ClusterLook,
    has_words,
    node_link,
    service_link,
)
from .markup import PageHead, render

NODES_A_PAGE = 100
CALLS_A_PAGE = 200
INCIDENTS_A_PAGE = 100
FIRST_NODES = 25
FIRST_INCIDENTS = 10
FIRST_FINDINGS = 10
OF_A_NODE = 100
OF_AN_INCIDENT = 200


@dataclass(frozen=True, slots=True)
class Fact:
    """A name and a value, with a detail about the value."""

    name: str
    value: str
    more: str = ""
    kind: str = ""
    """The CSS class."""


def render_overview(look: ClusterLook, asked: Selection) -> Parts:
    """Return the first page: findings about nodes, causes, Services that match the search."""
    merged = look.merged
    search = Search.parse(asked.q)
    lately = look.lately
    matching = found_in(merged, search)
    found = in_order(matching.ports, asked.sort, lately.rates)
    part = part_of(found, asked.page, PORTS_A_PAGE)
    rows = [_row(port, look) for port in part.items]
    return render(
        "cluster",
        head(look, asked, "All nodes"),
        figures=_figures(look),
        # If summaries omit Service ports, as in large clusters, the traffic of the last minute is
        # unknown.
        minute=Minute() if merged.healthy else look.lately.minute(),
        findings=merged.findings[:FIRST_FINDINGS],
        more_findings=len(merged.findings[FIRST_FINDINGS:]),
        incidents=say_incidents(merged.incidents[:FIRST_INCIDENTS], merged, look.now),
        more_incidents=len(merged.incidents[FIRST_INCIDENTS:]),
        matching=matching,
        part=part,
        rows=rows,
        columns=columns_of(rows, asked.sort),
        has_rates=lately.has_rates,
        empty="no_ports.html",
        unknown=search.unknown,
        opens=_opens(asked.q, found, merged),
        nodes=say_nodes(merged.rows[:FIRST_NODES]),
        more_nodes=len(merged.rows[FIRST_NODES:]),
    )


def render_nodes(look: ClusterLook, asked: Selection) -> Parts:
    """Return one page of the nodes that match the search."""
    said = say_nodes(look.merged.rows)
    found = [(row, words) for row, words in said if has_words(asked.q, _texts_of(row, words))]
    return render(
        "nodes",
        head(look, asked, "Nodes"),
        findings=look.merged.findings[:OF_A_NODE] if not asked.q else (),
        part=part_of(found, asked.page, NODES_A_PAGE),
    )


def render_node(look: ClusterLook, asked: Selection, node: str) -> Parts | None:
    """Return the page about a node; None if no node has the name."""
    merged = look.merged
    row = next((row for row in merged.rows if row.node == node), None)
    if row is None:
        return None
    # Don't show the last facts about a node that no longer answers, because they are outdated.
    answers = (one.status for one in look.all_nodes.answers if one.node == node)
    status = next(answers, None) if row.has_answer else None
    ports = _unhealthy_ports(status)
    own = {one.incident.id for one in row.incidents}
    incidents = [one for one in merged.incidents if node in one.nodes or one.incident.id in own]
    problems = [one for one in status.problems if not one.port] if status is not None else []
    words = (status.verdict if status is not None and row.mark else "") or _about(row)
    return render(
        "node",
        head(look, asked, node, mark=row.mark, heading=node, words=words),
        row=row,
        findings=row.findings,
        problems=problems[:OF_A_NODE],
        incidents=say_incidents(incidents[:FIRST_INCIDENTS], merged, look.now),
        facts=_facts_of(row, status, look.now),
        settings=row.settings,
        ports=ports[:OF_A_NODE],
        more_ports=len(ports[OF_A_NODE:]),
    )


def render_incidents(look: ClusterLook, asked: Selection) -> Parts:
    """Return one page of the causes that match the search."""
    merged = look.merged
    said = say_incidents(merged.incidents, merged, look.now)
    found = [
        (incident, words)
        for (incident, words), one in zip(said, merged.incidents, strict=True)
        if has_words(asked.q, (words, *incident.services, *one.nodes))
    ]
    return render(
        "causes",
        head(look, asked, "Causes"),
        part=part_of(found, asked.page, INCIDENTS_A_PAGE),
        findings=look.merged.findings[:FIRST_FINDINGS] if not asked.q else (),
    )


def render_incident(look: ClusterLook, asked: Selection, id_: str) -> Parts | None:
    """Return the page about an incident; None if it doesn't exist, or no longer exists."""
    one = next((one for one in look.merged.incidents if one.incident.id == id_), None)
    if one is None or one.incident.cause is None:
        return None
    ((incident, words),) = say_incidents([one], look.merged, look.now)
    seen = f"Seen by {len(one.nodes):,} of {plural(len(look.merged.answered), 'node')}."
    services = incident.services[:OF_AN_INCIDENT]
    ports: dict[str, list[MergedPort]] = {service: [] for service in services}
    for port in look.merged.ports:
        if (known := ports.get(port.key.of_service)) is not None:
            known.append(port)
    return render(
        "incident",
        head(look, asked, words, mark=incident.mark, heading=words, words=seen),
        incident=incident,
        command=incident.command,
        seen_by=[(node, node_link(node)) for node in one.nodes],
        endpoints=[
            (address, with_query("/", {"q": f"endpoint:{address}"}), "")
            for address in incident.endpoints[:OF_AN_INCIDENT]
        ],
        affected=[
            Affected(service, service_link(service), mark_of(known))
            for service, known in ports.items()
        ],
        more_touched=len(incident.services[OF_AN_INCIDENT:]),
    )


def render_calls(look: ClusterLook, calls: AllCalls, asked: Selection) -> Parts:
    """Return one page of the calls that match the search."""
    return render(
        "calls",
        head(look, asked, "Connections"),
        part=part_of(calls.matching(asked.q), asked.page, CALLS_A_PAGE),
        said=say_calls(calls, look.merged),
    )


def render_missing(look: ClusterLook, asked: Selection, words: str) -> Parts:
    """Return the page for a Service, node or other object that wasn't found."""
    return render("absent", head(look, asked, "Not there", mark=None, words=f"{words}."))


def head(
    look: ClusterLook,
    asked: Selection,
    title: str,
    *,
    mark: Level | Literal[""] | None = "",
    heading: str = "",
    words: str = "",
) -> PageHead:
    """Return the head of a page.

    Args:
        mark: The level of the page's subject, or None for a neutral mark; empty if the subject is
            all nodes.
        heading: The subject; empty for all nodes.
        words: The state of the subject as text; empty for the state of all nodes.
    """
    merged = look.merged
    level = merged.mark if mark == "" else mark
    word = str(level).capitalize() if level is not Level.OK else "OK"
    place = look.cluster or "userspace-proxy"
    return PageHead(
        look,
        asked,
        f"{word}: {title}, {place}" if level else f"{title}, {place}",
        level,
        heading or plural(len(merged.nodes), "node"),
        words or verdict(merged),
    )


def verdict(merged: Merged) -> str:
    """Return the state of the cluster in one line."""
    silent, excluded = merged.silent, format_excluded(merged)
    answers = f"{len(silent):,} without an answer." if silent else "All have answered."
    if any(one.cause.row is no_api_server for one in merged.findings):
        answers = "The API server can't be reached: these are the last answers."
    if excluded:
        answers = f"{answers} {excluded[0].upper()}{excluded[1:]}."
    where = " on the others" if silent else ""
    none_fails = f"{answers} No Service is known to fail{where}."
    doubted = sum(port.is_doubted for port in merged.ports)
    may_lose = f" {plural(doubted, 'Service port')} {MAY_LOSE}." if doubted else ""
    if unhealthy := merged.unhealthy:
        needs = "needs" if unhealthy == 1 else "need"
        return f"{answers} {unhealthy:,} of {merged.counted} {needs} attention.{may_lose}"
    unknown = sum(port.mark is None for port in merged.ports)
    if unknown:
        named = plural(unknown, "Service port")
        return f"{none_fails} Nothing shows whether all clients of {named} are answered.{may_lose}"
    found = (one.nodes for one in merged.findings if one.level is Level.TROUBLE)
    if any(not silent.issuperset(nodes) for nodes in found):
        return none_fails
    return f"{answers} All Services are served as planned{where}." if merged.answered else answers


def say_calls(calls: AllCalls, merged: Merged) -> str:
    """Return sentences that state which calls a list contains, and which calls it omits."""
    words = f"Counted by {plural(calls.nodes, 'node')} since their proxies' start."
    if len(merged.answered) > calls.nodes:
        words += (
            f" Of {len(merged.answered):,} nodes, the {CALLS_OF_NODES_MAX} with the most "
            "connections are asked."
        )
    if calls.others:
        words += f" {plural(calls.others, 'connection')} of other clients, which nodes don't list."
    return words


def say_incidents(
    incidents: Iterable[MergedIncident], merged: Merged, now: float
) -> list[tuple[IncidentFacts, str]]:
    """Return incidents with their sentences."""
    total = len(merged.answered)
    return [(_incident(one, merged), format_incident(one, now, total)) for one in incidents]


def _incident(one: MergedIncident, merged: Merged) -> IncidentFacts:
    """Return an incident's facts; if its nodes have old plans, the hint is about the agents."""
    cause, services = one.cause, one.incident.services
    if all(merged.are_late(service, one.nodes) for service in services):
        late = as_read(CauseCode.AGENT_BEHIND, say(cause), "", LATE_HINT)
        cause = late.replace(count=cause.count, first_at=cause.first_at, last_at=cause.last_at)
    return structs.replace(one.incident, cause=cause, command=one.command)


def say_nodes(rows: Iterable[NodeRow]) -> list[tuple[NodeRow, str]]:
    """Pair each row with a one-line description of its node's state."""
    return [(row, _about(row)) for row in rows]


def _about(row: NodeRow) -> str:
    causes = [one.cause for one in row.findings]
    causes += [one.cause_on(row.node) for one in row.incidents]
    if causes:
        more = f"; {len(causes) - 1:,} more" if len(causes) > 1 else ""
        return f"{say(causes[0], Form.SHORT)}{more}"
    if row.unhealthy:
        return f"{plural(row.unhealthy, 'Service port needs', 'Service ports need')} attention"
    if row.unserved:
        named = plural(row.unserved, "Service port")
        return f"not known whether all clients of {named} are answered"
    return "no problem" if row.has_answer else "no answer yet"


def _row(port: MergedPort, look: ClusterLook) -> Row:
    key, endpoints = port.key, port.endpoints
    known = len(look.merged.answered)
    minute, words = look.lately.minute(key), format_port(port, look.merged)
    tags = [port.first.protocol] if port.first.protocol != "TCP" else []
    tags += [key.family] if key.family not in ("", "IPv4") else []
    return Row(
        id=id_of(key),
        level=port.level,
        mark=port.mark,
        neutral="not known",
        namespace=key.namespace,
        service=key.service,
        port=key.port,
        title=str(key),
        link=service_link(key.of_service),
        tags=tuple(filter(None, (*tags, key.side))),
        address=port.address,
        nodes=f"{port.proven:,}/{known:,}" if port.proven or port.groups else "–",
        dots=tuple(one.level for one in endpoints[:DOTS_SHOWN]),
        serving=sum(map(_is_sound, endpoints)),
        endpoints=len(endpoints),
        words=words,
        says=words,
        is_sentence=port.mark is not Level.OK,
        has_cause=port.level is not Level.OK or bool(port.unserved),
        figures=figures_of(port.sums, look.lately.rates(key)),
        sparkline=minute.picture,
        minute=minute.words,
    )


def _is_sound(endpoint: MergedEndpoint) -> bool:
    """Return whether an endpoint is usable, and answers a node or fails on none."""
    return bool(endpoint.usable) and (bool(endpoint.answered) or not endpoint.failing)


def _opens(q: str, found: Sequence[MergedPort], merged: Merged) -> str:
    """Return the Service that a search names if it isn't listed but may exist; otherwise empty."""
    is_name = re.fullmatch(r"[^\s:/]+/[^\s:/]+", q) is not None
    return q if merged.healthy and is_name and not found else ""


def _figures(look: ClusterLook) -> list[Fact]:
    sums = look.merged.sums or NOTHING
    return [
        *(
            Fact(one.heading, format_count(count), one.title, one.colour if count else "zero")
            for one in FIGURES.values()
            if one.title
            for count in [getattr(sums, one.name)]
        ),
        Fact("open", format_count(sums.active)),
        Fact("total", format_count(sums.counted)),
        Fact("in", format_bytes(sums.received_bytes)),
        Fact("out", format_bytes(sums.sent_bytes)),
        Fact("nodes", f"{len(look.merged.answered):,}/{len(look.merged.nodes):,}", "that answered"),
    ]


def _texts_of(row: NodeRow, words: str) -> Sequence[str]:
    return row.node, row.version, row.commit, row.steering, words, str(row.level)


def _unhealthy_ports(status: StatusFacts | None) -> list[PortFacts]:
    ports = status.ports if status is not None else ()
    found = [port for port in ports if port.state.level is not Level.OK]
    return sorted(found, key=lambda port: (WORST_FIRST.index(port.state.level), port.name))


def _facts_of(row: NodeRow, status: StatusFacts | None, now: float) -> list[Fact]:
    if status is None:
        return []
    age, cpu, sums, kernel = row.plan_age_s, row.cpu, row.sums, status.kernel
    tracks = status.tracking.limit > 0
    entries, limit = map(format_count, (status.tracking.entries, status.tracking.limit))
    return [
        Fact("Version", row.version or "unknown", row.commit),
        Fact("Started", f"{format_seconds(now - status.started)} ago"),
        Fact("Source", status.source.kind, status.source.location),
        Fact("Steering", row.steering or "unknown", row.path),
        Fact(
            "Applied plan",
            f"{format_seconds(age)} ago" if age is not None else "none yet",
            f"revision {row.revision}{_compared(row)}",
        ),
        Fact("Connections", format_count(sums.active), f"open, of {sums.counted:,}"),
        Fact("Failed", format_count(sums.failed)),
        Fact("CPU", f"{cpu:.1%} of a core" if cpu is not None else "unknown"),
        Fact("Memory", format_bytes(row.memory_bytes) if row.memory_bytes else "unknown"),
        *([Fact("Connection tracking", entries, f"of {limit} entries")] if tracks else []),
        Fact("Kernel", kernel.release or "unknown", kernel.words if kernel.release else ""),
    ]


def _compared(row: NodeRow) -> str:
    if row.behind is None:
        return ""
    if not row.behind:
        return ", as the API server has it"
    return f", {plural(len(row.behind), 'Service')} not as the API server has it"
