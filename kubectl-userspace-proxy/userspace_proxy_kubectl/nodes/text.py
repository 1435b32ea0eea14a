"""Renders all nodes as text for terminals, in the manner of ``status.text``.

    118 of 120 nodes  214 Service ports, 3 need attention  412 open
      ✕ node-9: no answer within 5 s
      ✕ only node-7 can't reach 10.244.3.9:8080: it does not answer; the other 117 that tried …
          shop/web, shop/cart and 2 more
      ✕ shop/web:http  10.96.0.10:80  refused on node-7 and node-31 (2 of 120): …; served on 118

Rule 1: a line about an object begins with two spaces and a mark: ✕ trouble, ! attention, ✓ served.
Rule 2: nodes come first, then causes that affect several Services or only some nodes, and last
Service ports, whose lines don't repeat these causes.
Rule 3: agents may send any text, so each line is made printable, and each list is bounded.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from userspace_proxy.causes.say import remedy
from userspace_proxy.facts import Level, worst
from userspace_proxy.facts.units import (
    count_in_short,
    format_bytes,
    format_count,
    format_seconds,
    plural,
)
from userspace_proxy.model.quoting import shown
from userspace_proxy.status.history import Figures
from userspace_proxy.status.text import (
    INCIDENTS_SHOWN,
    MARKS,
    TOP_SHOWN,
    StatusText,
    TextLine,
    TopRow,
    address_of,
    counted_ports,
    encoded,
    formatted,
    ignored_lines,
    incident_lines,
    more_causes,
    top_lines,
)
from userspace_proxy.status.wrapping import placed, placed_remedy

from .endpoints import Extent, MergedEndpoint
from .findings import NodeFinding
from .growth import in_order, rates_of
from .incidents import MergedIncident
from .merged import Merged, MergedPort
from .rows import NodeRow
from .words import (
    format_endpoint,
    format_excluded,
    format_finding,
    format_incident,
    format_port,
)

# The maximum number of findings that are listed unless the output is wide: the first screen should
# show problems of nodes, of several Services, and of single Services.
_FINDINGS_SHOWN = 8
# The maximum number of Service ports that are listed; a single agent may claim any number.
_PORTS_SHOWN = 10_000
_ENDPOINTS_SHOWN = 50
# A finding about at most this many nodes is printed in the rows of these nodes; other findings are
# printed once.
_ALIKE = 3
_BELOW = "      "

_NODE_HEADINGS = (
    "NODE", "VERSION", "STEERING", "PATH", "PLAN", "BEHIND", "NOT OK", "OPEN", "CONN", "FAILED",
    "CPU", "MEMORY",
)  # fmt: skip
# The columns that are omitted if the terminal is too narrow, in the order of omission.
_LEAST = ("CONN", "PATH", "STEERING", "VERSION", "FAILED", "OPEN")


def render_status(merged: Merged, *, columns: int = 0, is_wide: bool = False) -> StatusText:
    """Return all nodes as text in UTF-8.

    Args:
        columns: The width of the terminal; 0 if unlimited.
        is_wide: Whether to show all findings and causes, their remedies, and endpoints.
    """
    lines = [*placed("", _header(merged), columns), *_namespace_lines(merged, columns)]
    findings = merged.findings if is_wide else merged.findings[:_FINDINGS_SHOWN]
    for finding in findings:
        lines += _finding_lines(finding, merged.now, columns, is_wide=is_wide)
    if more := len(merged.findings) - len(findings):
        what = f"and {plural(more, 'more finding')} about nodes: the command nodes lists them"
        lines += placed("    ", what, columns)
    several = [one for one in merged.incidents if _is_above(one)]
    above = several if is_wide else several[:INCIDENTS_SHOWN]
    for one in above:
        lines += _incident_lines(one, merged, columns, is_wide=is_wide)
    lines += more_causes(len(several) - len(above), columns)
    said = {key for one in above for key in one.keys}
    lines += _port_lines(merged, said, columns, is_wide=is_wide)
    lines += ignored_lines(merged.ignored, columns, is_wide=is_wide)
    lines += placed("  ", merged.unmatched, columns) if merged.unmatched else ()
    if merged.healthy:
        noun = "other Service port" if merged.ports else "Service port"
        what = f"{plural(merged.healthy, noun)} served wherever that is known"
        lines += placed(f"  {MARKS[Level.OK]} ", what, columns)
    return StatusText(encoded(lines), merged.level)


def render_nodes(merged: Merged, *, columns: int = 0) -> StatusText:
    """Return the table of nodes; findings about many nodes are above it."""
    of_many = [one for one in merged.findings if not 0 < len(one.nodes) <= _ALIKE]
    lines = [*placed("", _answered(merged), columns)]
    for finding in of_many:
        lines += _finding_lines(finding, merged.now, columns, is_wide=False)
    table = [_NODE_HEADINGS, *map(_node_cells, merged.rows)]
    places = _fitting(table, columns)
    table = [tuple(row[place] for place in places) for row in table]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines.append(f"    {_padded(table[0], widths)}")
    for row, cells in zip(merged.rows, table[1:], strict=True):
        lines.append(f"  {MARKS[row.mark]} {_padded(cells, widths)}")
        lines += _row_lines(row, merged, columns)
    return StatusText(encoded(lines), worst(row.level for row in merged.rows))


def render_top(
    merged: Merged, before: Merged | None, *, sort: str = "rate", columns: int = 0
) -> StatusText:
    """Return the rates of the first Service ports in an order, summed over all nodes.

    Args:
        before: The answers a few seconds earlier; None if there are no rates yet.
        sort: The figure to sort by, the highest first, or ``name``.
    """
    rates = rates_of(merged, before) if before is not None else {}
    none = Figures()
    sort = sort if sort == "name" else f"-{sort}"
    ports = in_order(merged.ports, sort, lambda key: rates.get(key, none))
    total = len(merged.answered)
    rows = [
        TopRow(
            one.mark,
            shown(str(one.key)),
            f"{one.proven:,} of {total:,}" if one.proven or one.groups else "-",
            one.sums.active,
            rates.get(one.key),
        )
        for one in ports[:TOP_SHOWN]
    ]
    lines = [*placed("", _header(merged), columns), *_namespace_lines(merged, columns)]
    lines += top_lines("OK ON", rows, columns, more=len(ports) - len(rows))
    return StatusText(encoded(lines), worst(port.level for port in merged.ports))


def _row_lines(row: NodeRow, merged: Merged, columns: int) -> Iterator[str]:
    """Yield the lines below a node's row: incidents, and findings about few nodes."""
    for finding in row.findings:
        if len(finding.nodes) <= _ALIKE:
            alone = NodeFinding(finding.level, finding.cause)
            yield from placed(_BELOW, format_finding(alone, merged.now), columns)
    for one in row.incidents[:INCIDENTS_SHOWN]:
        words = format_incident(one, merged.now, len(merged.answered))
        yield from placed(_BELOW, words, columns)
    if (more := len(row.incidents) - INCIDENTS_SHOWN) > 0:
        yield f"{_BELOW}and {plural(more, 'more cause')}: the command status lists them"


def _answered(merged: Merged) -> str:
    total, answered = len(merged.nodes), len(merged.answered)
    nodes = plural(total, "node") if merged.has_nodes else plural(total, "node with an agent")
    words = nodes if answered == total else f"{answered:,} of {nodes} answered"
    return "; ".join(filter(None, (words, format_excluded(merged))))


def _header(merged: Merged) -> str:
    doubted = sum(port.is_doubted for port in merged.ports)
    words = counted_ports(len(merged.ports) + merged.healthy, merged.unhealthy, doubted)
    counts = [f"{format_count(merged.sums.active)} open"] if merged.sums else []
    if merged.sums and merged.sums.saved:
        counts.append(f"{plural(merged.sums.saved, 'connection')} saved")
    return "  ".join(filter(None, [_answered(merged), words, ", ".join(counts)]))


def _namespace_lines(merged: Merged, columns: int) -> Iterator[str]:
    """Yield a line stating that only one namespace is shown, and how many problems others have."""
    if not merged.namespace:
        return
    what = f"namespace {shown(merged.namespace)}"
    if count := merged.unhealthy_elsewhere:
        others = "Service of another namespace needs" if count == 1 else "Services of others need"
        what = f"{what}; {count:,} {others} attention: -A"
    yield from placed("", what, columns)


def _finding_lines(
    finding: NodeFinding, now: float, columns: int, *, is_wide: bool
) -> Iterator[str]:
    yield from placed(f"  {MARKS[finding.level]} ", format_finding(finding, now), columns)
    if is_wide and (hint := remedy(finding.cause)):
        yield from placed_remedy(_BELOW, f"-> {hint}", columns)


def _is_above(one: MergedIncident) -> bool:
    """Return whether a cause has its own lines, because no line of a Service port contains it."""
    return len(one.incident.services) > 1 or one.extent is Extent.PATH


def _incident_lines(
    one: MergedIncident, merged: Merged, columns: int, *, is_wide: bool
) -> Iterator[str]:
    facts, words = one.incident, format_incident(one, merged.now, len(merged.answered))
    return incident_lines(facts, words, one.command, merged.now, columns, is_full=is_wide)


def _port_lines(
    merged: Merged, said: Collection[object], columns: int, *, is_wide: bool
) -> Iterator[str]:
    entries = []
    for port in merged.ports[:_PORTS_SHOWN]:
        words = f"{format_port(port, merged, said)}{_traffic(port)}"
        cells = shown(str(port.key)), shown(address_of(port.first)), words
        below = map(_endpoint, port.endpoints[:_ENDPOINTS_SHOWN]) if is_wide else ()
        entries.append(TextLine(port.level, cells, tuple(below), MARKS[port.mark]))
    yield from formatted(entries, columns)
    if more := len(merged.ports) - len(entries):
        yield f"    and {plural(more, 'more Service port')}"


def _endpoint(endpoint: MergedEndpoint) -> str:
    pod = f" {shown(endpoint.pod)}" if endpoint.pod else ""
    place = f" ({shown(endpoint.node)})" if endpoint.node else ""
    return f"endpoint{pod}{place}  {format_endpoint(endpoint)}"


def _traffic(port: MergedPort) -> str:
    """Return ``  1 open, 3 connections, 9 kB`` for a healthy port; empty without traffic."""
    if port.level is not Level.OK:
        return ""
    sums = port.sums
    if not sums.counted:
        return ""
    noun = "flow" if port.first.protocol == "UDP" else "connection"
    volume = format_bytes(sums.received_bytes + sums.sent_bytes)
    return f"  {format_count(sums.active)} open, {plural(sums.counted, noun)}, {volume}"


def _node_cells(row: NodeRow) -> tuple[str, ...]:
    if not row.has_answer:
        return (shown(row.node), *("-" for _ in _NODE_HEADINGS[1:]))
    behind = "unknown" if row.behind is None else f"{len(row.behind):,}" if row.behind else "no"
    age = "none" if row.plan_age_s is None else format_seconds(row.plan_age_s)
    return (
        shown(row.node),
        shown(f"{row.version} {row.commit}".strip()) or "unknown",
        shown(row.steering),
        shown(row.path) or "unknown",
        age,
        behind,
        f"{row.unhealthy:,} of {row.ports:,}",
        count_in_short(row.sums.active),
        count_in_short(row.sums.counted),
        count_in_short(row.sums.failed),
        "unknown" if row.cpu is None else f"{100 * row.cpu:.1f} %",
        format_bytes(row.memory_bytes) if row.memory_bytes else "unknown",
    )


def _fitting(table: Sequence[Sequence[str]], columns: int) -> Sequence[int]:
    """Return the indexes of the columns that fit; the least important columns are omitted first."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    places = list(range(len(widths)))
    for name in _LEAST if columns else ():
        if 4 + sum(widths[place] + 2 for place in places) - 2 <= columns:
            break
        places.remove(_NODE_HEADINGS.index(name))
    return places


def _padded(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = (cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
    return "  ".join(padded).rstrip()
