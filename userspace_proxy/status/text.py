"""Renders a view as text, one line per Service port, for terminals and ``curl``.

    node-1  nftables  4 Service ports, 1 needs attention  plan 2 s old, 1 worker, 13 open, 70 conn/s
      ✕ shop/flaky  10.96.0.30:80  0 of 1  Clients fail: 10.244.0.9:80 is unreachable: no host has …
      ✓ shop/web    10.96.0.10:80  3 of 3  13 open, 70 conn/s, 1.2 MB/s

It also renders the rates of the busiest Service ports, for the command ``top``.

Rule 1: a line about an object begins with two blanks and a mark: ✕ trouble, ! attention, ✓ served,
· not served by design, without an endpoint but also without waiting clients, or not known to be
served (``PortFacts.neutral_reason``). Programs that add colours use only these marks.
Rule 2: problems come first: problems of the node, causes that affect several Services, which the
lines of the Services don't repeat, and problems of Service ports, in this order.
Rule 3: the sentences are the same as on the page: this module only lays them out.
"""

from __future__ import annotations

import collections
import itertools
import sys
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ..causes.cause import CauseCode
from ..causes.say import Form, remedy, say
from ..diagnosis.dated import and_mistakes, cause_at, last_answer, sentence_at
from ..diagnosis.incidents import Incidents, remedy_in
from ..diagnosis.paths import format_counted, format_path, format_probes
from ..diagnosis.problems import problems_of_node
from ..facts import (
    EndpointFacts,
    IgnoredFacts,
    IncidentFacts,
    Level,
    PortFacts,
    StatusFacts,
    worst,
)
from ..facts.units import (
    capitalised,
    format_bytes,
    format_count,
    format_ejected,
    format_limit,
    format_rate,
    format_seconds,
    plural,
)
from ..model import DataPath
from ..model.quoting import printable
from .history import IDLE, Figures, History
from .incident_words import MAY_LOSE, cause_of, client_effects, headline, names_in_line
from .search import Search
from .selection import Selection, select
from .wrapping import placed, placed_remedy

MARKS = {Level.TROUBLE: "✕", Level.ATTENTION: "!", Level.OK: "✓", None: "·"}
IGNORED_MARK = MARKS[None]
# The width up to which columns are aligned: longer names and addresses shift only the rest of their
# line.
WIDEST = 44
# The minimum width that aligned names leave for a cause, or for the first part of the traffic, such
# as ``1,200 open``: names that leave less aren't aligned.
_CAUSE, _TRAFFIC = 30, 10


_ALL = Selection()
_RATES = ("OPEN", "CONN/S", "IN/S", "OUT/S", "SAVED/S", "FAILED/S")
# The maximum number of rows of ``top``: no screen has more lines.
TOP_SHOWN = 200
# The number of shown problems of the node with the same remedy. If only one more exists, it is also
# shown: a line with the number of others would take as much space.
_ALIKE_SHOWN = 3
# How many causes that affect several Services are shown; each takes several lines.
INCIDENTS_SHOWN = 5
# The assumed width of the terminal if it is unknown.
_USUAL_COLUMNS = 80
# How many reasons are shown for Services ignored by design.
_REASONS_SHOWN = 3
_TAKEN_SHOWN = 5
# User-Agent prefixes of terminal programs, which send "Accept: */*".
_TERMINAL_PROGRAMS = ("curl/", "Wget/", "HTTPie/")


@dataclass(frozen=True, slots=True)
class StatusText:
    """A view, or a part of it, rendered as text."""

    body: bytes
    level: Level
    """The worst level in the text."""


@dataclass(frozen=True, slots=True)
class TextLine:
    """A line of text about one object, with cells in columns."""

    level: Level
    cells: tuple[str, ...]
    below: tuple[str, ...] = ()
    mark: str = ""
    shorter: tuple[str, ...] = ()
    """Shorter texts for the last cell, used if that is too long."""


def prefers_text(accept: str, user_agent: str) -> bool:
    """Return whether a client prefers text to HTML.

    It does if it accepts text/plain by name and not text/html, or if it is a program for terminals
    that doesn't ask for HTML.
    """
    if "text/html" in accept:
        return False
    return "text/plain" in accept or user_agent.startswith(_TERMINAL_PROGRAMS)


def render_text(
    view: StatusFacts,
    *,
    now: float,
    selection: Selection = _ALL,
    history: History = IDLE,
    is_wide: bool = False,
    has_node: bool = True,
    columns: int = 0,
    incidents: Incidents | None = None,
) -> StatusText:
    """Return a view as text in UTF-8.

    10,000 Service ports take about 0.2 s: call this in a thread.

    Args:
        selection: The Service ports and ignored Services, with their order; the page number is
            ignored.
        is_wide: Whether to show the addresses and endpoints of Service ports, and ignored Services.
        has_node: Whether to show the problems of the node.
        columns: The width of the terminal; 0 for no limit.
        incidents: The incidents of all Service ports; None if the view contains all ports.
    """
    chosen = select(view, selection, history)
    known = incidents or Incidents(view)
    shared = known.at(chosen.ports, least=2)
    above = shared if is_wide else shared[:INCIDENTS_SHOWN]
    ids = {one.id for one in above}
    node = list(_node_lines(view, now, is_wide)) if has_node else []
    probes = format_probes(view.probes) if is_wide else ""
    ports = []
    for one in chosen.ports:
        said = [fact for fact, id_ in known.ids(one).items() if id_ in ids] if ids else []
        ports.append(_port_line(one, now, history, is_wide, probes, said))
    taken = [_ignored_line(item) for item in chosen.ignored if item.is_conflict]
    left = [item for item in chosen.ignored if not item.is_conflict]
    first = taken if is_wide else taken[:_TAKEN_SHOWN]
    shown = [*first, *ports]
    facts = [f"plan {_age(view.sync.last_done, now)}"]
    if has_node and (words := format_probes(view.probes)):
        facts.append(words)
    header = _header(view, chosen.ports, facts, history)
    lines = [*placed("", header, columns)]
    if is_wide and has_node:
        lines += placed("", view.program, columns)
        lines += _kernel_lines(view, columns)
    lines += formatted(node, columns)
    for incident in above:
        lines += _incident_lines(incident, now, columns, is_full=is_wide)
    lines += more_causes(len(shared) - len(above), columns)
    lines += formatted(shown, columns)
    lines += _more_taken(len(taken) - len(first), columns)
    lines += ignored_lines(left, columns, is_wide=is_wide)
    if not (shown or left):
        lines += _unmatched(selection, columns)
    return StatusText(encoded(lines), worst(line.level for line in (*node, *taken, *ports)))


def more_causes(count: int, columns: int) -> Iterator[str]:
    """Yield the lines that state how many causes of several Services aren't shown, if any."""
    if count:
        what = f"and {plural(count, 'more cause')} of several Services: wide output lists them"
        yield from placed("    ", what, columns)


def _more_taken(count: int, columns: int) -> Iterator[str]:
    if count:
        services = plural(count, "more Service is not served", "more Services are not served")
        yield from placed("    ", f"and {services}, as others have their addresses", columns)


def render_incident_text(incident: IncidentFacts, now: float, columns: int = 0) -> StatusText:
    """Return one incident as text, with all known details."""
    return StatusText(
        encoded(_incident_lines(incident, now, columns, is_full=True)), incident.level
    )


def render_top(
    view: StatusFacts, *, selection: Selection, history: History, columns: int = 0
) -> StatusText:
    """Return the rates of the first ``TOP_SHOWN`` of the selected Service ports."""
    chosen = select(view, selection, history).ports
    lines = [*placed("", _header(view, chosen, [], history), columns)]
    if not chosen:
        lines += _unmatched(selection, columns)
        return StatusText(encoded(lines), Level.OK)
    # Before the second sample there are no rates, so leave them empty.
    rates = history.rates if history.has_rates else lambda _: None
    rows = [
        TopRow(
            one.mark,
            f"{one.plan.key} {one.shared_number}".rstrip(),
            _usable(one),
            one.active,
            rates(one.plan.key),
        )
        for one in chosen[:TOP_SHOWN]
    ]
    lines += top_lines("ENDPOINTS", rows, columns, more=len(chosen) - TOP_SHOWN)
    return StatusText(encoded(lines), worst(one.state.level for one in chosen))


class TopRow(NamedTuple):
    """A line of the table of rates."""

    mark: Level | None
    name: str
    served: str
    """The number of endpoints that serve the Service port; for all nodes, of nodes."""
    open: int
    rates: Figures | None
    """The rates; None if there are none yet."""


def top_lines(served: str, top: Iterable[TopRow], columns: int, *, more: int) -> Iterator[str]:
    """Yield the lines of a table of rates, and how many more rows there are.

    A name that is too long for the width is on its own line.

    Args:
        served: The heading of the column of serving endpoints or nodes.
    """
    top = list(top)
    rows = [("SERVICE PORT", served, *_RATES), *map(_top_cells, top)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    gap = "  "
    if columns and 4 + sum(widths) + len(gap) * len(widths[1:]) > columns:
        gap = " "
        room = columns - 4 - sum(widths[1:]) - len(gap) * len(widths[1:])
        widths[0] = min(widths[0], max(room, len(rows[0][0])))
    marks = (" ", *(MARKS[one.mark] for one in top))
    for mark, (name, *cells) in zip(marks, rows, strict=True):
        padded = [cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True)]
        begin = f"  {mark} {name.ljust(widths[0])}"
        if len(name) > widths[0]:
            yield begin
            begin = " " * (4 + widths[0])
        yield gap.join([begin, *padded])
    if more > 0:
        yield f"    and {more:,} more"


def _top_cells(one: TopRow) -> tuple[str, ...]:
    rates = one.rates
    cells: tuple[str, ...] = ("-",) * (len(_RATES) - 1)
    if rates is not None:
        octets = format_bytes(rates.received_bytes), format_bytes(rates.sent_bytes)
        counts = format_rate(rates.saved), format_rate(rates.failed)
        cells = (format_rate(rates.connections), *octets, *counts)
    return one.name, one.served, format_count(one.open), *cells


def _unmatched(selection: Selection, columns: int) -> Iterator[str]:
    if selection.q:
        yield from placed("  ", Search.parse(selection.q).without_match(), columns)


def _header(
    view: StatusFacts, ports: Sequence[PortFacts], facts: Sequence[str], history: History
) -> str:
    unhealthy = sum(one.state.level is not Level.OK for one in ports)
    words = counted_ports(len(ports), unhealthy, sum(one.doubt is not None for one in ports))
    open_ = sum(one.active for one in ports)
    workers = [plural(len(view.workers), "worker")] if view.workers else []
    parts = [*facts, *workers, f"{format_count(open_)} open"]
    if history.has_rates:
        rates = [history.rates(one.plan.key) for one in ports]
        volume = sum(rate.received_bytes + rate.sent_bytes for rate in rates)
        parts.append(f"{format_rate(sum(rate.connections for rate in rates))} conn/s")
        parts.append(f"{format_bytes(volume)}/s")
    if saved := sum(one.saved for one in ports):
        parts.append(f"{plural(saved, 'connection')} saved")
    return "  ".join([view.node or "this node", view.steering.name, words, ", ".join(parts)])


def counted_ports(total: int, unhealthy: int, doubted: int) -> str:
    """Return ``9 Service ports, 2 need attention``, plus a clause if some may lose packets."""
    count, needs = plural(total, "Service port"), "needs" if unhealthy == 1 else "need"
    words = f"{count}, {unhealthy:,} {needs} attention" if unhealthy else count
    return f"{words}, {doubted:,} {MAY_LOSE}" if doubted else words


def _age(then: float, now: float) -> str:
    return f"{format_seconds(max(1, round(now - then)))} old" if then else "not applied yet"


def _kernel_lines(view: StatusFacts, columns: int) -> Iterator[str]:
    """Yield the lines about the kernel: its release, and its missing and untested features."""
    if view.kernel.release:
        said = filter(None, (f"kernel {view.kernel.release}", view.kernel.words))
        yield from placed("", ": ".join(said), columns)
    for lack in view.kernel.lacks:
        yield from placed(f"  {MARKS[None]} kernel  ", f"{lack.words} ({lack.brings})", columns)


def _node_lines(view: StatusFacts, now: float, is_full: bool) -> Iterator[TextLine]:
    # A Service whose address is taken has its own line, so omit the problem here.
    problems = (p for p in problems_of_node(view, now) if p.code is not CauseCode.ADDRESS_TAKEN)
    # Group problems by remedy: all mistakes in manifests have the same remedy.
    for (level, hint), same in itertools.groupby(problems, lambda p: (p.level, p.hint)):
        texts = [problem.what for problem in same]
        if not is_full and len(texts) > _ALIKE_SHOWN + 1:
            more = f"and {len(texts) - _ALIKE_SHOWN:,} more problems: wide output lists them"
            texts = [*texts[:_ALIKE_SHOWN], more]
        if hint:
            texts[0] = f"{texts[0]} ({hint})"
        yield from (TextLine(level, ("node", text)) for text in texts)


def _incident_lines(
    incident: IncidentFacts, now: float, columns: int, *, is_full: bool
) -> Iterator[str]:
    what = headline(incident, now)
    return incident_lines(incident, what, incident.command, now, columns, is_full=is_full)


def incident_lines(
    incident: IncidentFacts, what: str, command: str, now: float, columns: int, *, is_full: bool
) -> Iterator[str]:
    """Yield the lines about a cause that affects several Services, or only some nodes.

    Args:
        what: The first line.
        command: The command that shows more, or empty.
    """
    below = "      "
    yield from placed(f"  {MARKS[incident.mark]} ", what, columns)
    room = sys.maxsize if is_full else (columns or _USUAL_COLUMNS) - len(below)
    yield from placed(below, names_in_line(incident, room), columns)
    if counted := "; ".join(client_effects(incident, now)):
        yield from placed(below, capitalised(counted), columns)
    if is_full and (hint := remedy(cause_of(incident))):
        yield from placed_remedy(below, f"-> {hint}", columns)
    if command:
        yield f"{below}{command}"


def _port_line(
    port: PortFacts,
    now: float,
    history: History,
    is_full: bool,
    probes: str,
    above: Collection[object],
) -> TextLine:
    words, *shorter = _words(port, now, history, above)
    cells = (str(port.plan.key), address_of(port), _usable(port), words)
    below = tuple(_details(port, now, probes)) if is_full else ()
    return TextLine(port.state.level, cells, below, MARKS[port.mark], tuple(shorter))


def address_of(port: PortFacts) -> str:
    """Return the first address that clients dial and the number of others: ``10.96.0.1:53 +2``."""
    if not port.frontends:
        return "no address"
    more = len(port.frontends) - 1
    protocol = f"/{port.protocol}" if port.shared_number or port.protocol != "TCP" else ""
    return f"{port.frontends[0].address}{protocol}{f' +{more}' if more else ''}"


def _usable(port: PortFacts) -> str:
    return f"{port.serving:,} of {len(port.endpoints):,}"


def _words(
    port: PortFacts, now: float, history: History, above: Collection[object]
) -> Sequence[str]:
    """Return the problem or the traffic, followed by shorter forms of it.

    Args:
        above: The facts of causes that are shown above the Service ports.
    """
    state = port.state
    if state.level is not Level.OK or port.is_dropping or port.is_holding:
        sentence = f"{sentence_at(port, now, state.causes[:1], above)}{and_mistakes(port)}"
        return (sentence, capitalised(state.word)) if above else (sentence,)
    # A served port's causes are denials of clients, or notes on intended effects of settings.
    is_said = port.mark is None and port.path is not DataPath.KERNEL
    denied = [cause for cause in state.causes[:1] if not (is_said and cause in state.stated)]
    causes = [cause_at(cause, now) for cause in denied]
    return ["; ".join((words, *causes)) for words in _traffic(port, now, history)]


def _traffic(port: PortFacts, now: float, history: History) -> Sequence[str]:
    noun = "flow" if port.protocol == "UDP" else "connection"
    by_rules = port.kernel_connections
    if port.is_unseen:
        more = "" if (count := port.past_workers) is None else f", {plural(count, noun)}"
        return f"on the kernel path{more}", "on the kernel path"
    if port.mark is None:
        return (port.state.sentence,)
    open_ = f"{format_count(port.active)} open"
    last = last_answer(port, now)
    is_followed = port.path is DataPath.KERNEL
    others = f", {plural(by_rules, noun)} by rules" if by_rules and is_followed else ""
    rest = f"{others}{f', {last}' if last else ''}{_moved(port)}"
    if history.has_rates:
        rates = history.rates(port.plan.key)
        volume = format_bytes(rates.received_bytes + rates.sent_bytes)
        counts = [open_, f"{format_rate(rates.connections)} conn/s", f"{volume}/s"]
    else:
        volume = format_bytes(port.received_bytes + port.sent_bytes)
        counts = [open_, plural(port.connections, noun), volume]
    return [f"{', '.join(counts[:number])}{rest}" for number in (3, 2, 1)]


def _moved(port: PortFacts) -> str:
    """Return ``, only at ADDRESS`` if clients must dial another address; otherwise empty.

    With ``none`` steering, another program may listen on the Service's address.
    """
    only_at = port.frontends[0].only_at if port.frontends else ""
    return f", only at {only_at}" if only_at else ""


def _details(port: PortFacts, now: float, probes: str) -> Iterator[str]:
    """Yield a Service port's causes, addresses, endpoints, path, probes and policy."""
    for cause in port.state.causes:
        yield f"{cause.code}: {cause_at(cause, now)}"
        if hint := remedy_in(port, cause):
            yield f"  -> {hint}"
    if port.state.hint and not port.state.causes:
        yield f"-> {port.state.hint}"
    for one in port.frontends:
        yield f"address   {one.address}/{port.protocol}, {one.kind}: {one.target}"
    for endpoint in port.endpoints:
        yield f"endpoint  {_endpoint(endpoint, is_unseen=port.is_unseen)}"
    if not port.has_default_path:
        yield f"path      {format_path(port.path, port.path_reason, port.path_since, now)}"
        if counted := format_counted(port):
            yield f"          {counted}"
    if probes and port.is_probed:
        yield f"probes    {probes}"
    facts = [port.policy, port.balance, format_limit(port.max_connections)]
    if port.admits is not None:
        facts.append(f"admits {', '.join(port.admits) or 'nothing'}")
    if port.affinity_timeout_s is not None:
        facts.append(f"ClientIP affinity, {format_seconds(port.affinity_timeout_s)}")
    if any(facts):
        yield f"policy    {'; '.join(filter(None, facts))}"


def _endpoint(endpoint: EndpointFacts, *, is_unseen: bool) -> str:
    state = endpoint.state
    if endpoint.ejected_for_s is not None:
        state = format_ejected(endpoint.ejected_for_s)
    parts = [state, endpoint.preference, endpoint.pod, endpoint.node]
    if is_unseen and not endpoint.connections:
        # Connections on the kernel path aren't counted for each endpoint.
        return f"{endpoint.address}  {', '.join(filter(None, parts))}"
    parts.append(f"{format_count(endpoint.active)} open")
    parts.append(f"{format_count(endpoint.connections)} in all")
    if endpoint.failed:
        parts.append(f"{format_count(endpoint.failed)} failed")
    parts.append(format_bytes(endpoint.received_bytes + endpoint.sent_bytes))
    return f"{endpoint.address}  {', '.join(filter(None, parts))}"


def _ignored_line(item: IgnoredFacts) -> TextLine:
    name = f"{item.service}:{item.port}" if item.port else item.service
    if item.is_conflict:
        return TextLine(Level.TROUBLE, (name, "", "", f"Not served: {say(item.cause)}"))
    return TextLine(Level.OK, (name, "", "", f"Ignored: {say(item.cause)}"), mark=IGNORED_MARK)


def ignored_lines(ignored: Sequence[IgnoredFacts], columns: int, *, is_wide: bool) -> Iterator[str]:
    """Yield how many Services or ports are ignored by design, and frequent reasons; or all."""
    if is_wide or not ignored:
        yield from formatted([*map(_ignored_line, ignored)], columns)
        return
    words = plural(len(ignored), "Service or port", "Services or ports")
    # The short form omits the effect on clients.
    reasons = (say(item.cause, Form.SHORT) for item in ignored)
    shown = collections.Counter(reasons).most_common(_REASONS_SHOWN)
    parts = [f"{reason} ({count:,})" for reason, count in shown]
    if rest := len(ignored) - sum(count for _, count in shown):
        parts.append(f"other reasons ({rest:,})")
    what = f"{words} ignored by design: {', '.join(parts)}; wide output lists them"
    yield from placed(f"  {IGNORED_MARK} ", what, columns)


def formatted(lines: Sequence[TextLine], columns: int) -> Iterator[str]:
    """Yield the lines with their cells in columns; the last cell has the remaining width.

    A last cell that is too long is replaced by a shorter form, or wrapped. If a name leaves no room
    for the other cells, it is on its own line.
    """
    cells_of = list(zip(*(line.cells for line in lines), strict=True))[:-1]
    widths = [max((len(c) for c in column if len(c) <= WIDEST), default=0) for column in cells_of]
    if columns and widths:
        beside = _TRAFFIC if all(line.shorter for line in lines) else _CAUSE
        room = columns - beside - len("  ✓ ") - sum(width + 2 for width in widths[1:]) - 2
        widths[0] = max((len(c) for c in cells_of[0] if len(c) <= room), default=0)
    for line in lines:
        *cells, last = line.cells
        padded = [f"{cell.ljust(width)}  " for cell, width in zip(cells, widths, strict=True)]
        head = f"  {line.mark or MARKS[line.level]} {''.join(padded)}"
        least = len(line.shorter[-1]) if line.shorter else -len("  ")
        if columns and len(padded) > 1 and len(head) + least > columns:
            yield f"  {line.mark or MARKS[line.level]} {cells[0]}"
            head = f"    {' ' * (widths[0] + 2)}{''.join(padded[1:])}"
        fitting = (one for one in (last, *line.shorter) if len(head) + len(one) <= columns)
        shown = next(fitting, (last, *line.shorter)[-1]) if columns else last
        yield from placed(head, shown, columns)
        for text in line.below:
            yield from placed("      ", text, columns)


def encoded(lines: Iterable[str]) -> bytes:
    """Return lines in UTF-8, without secrets, and with unprintable characters escaped."""
    # Names from a manifest may contain surrogates, which UTF-8 can't encode.
    return ("\n".join(map(printable, lines)) + "\n").encode("utf-8", "replace")
