"""Renders a view, or one of its incidents, as HTML of bounded size, whole or in parts.

    view, history ──▶ Page ──▶ parts, one for each element ──┬─▶ the whole page
                                                             └─▶ what changed (``stream``)

Rule 1: each part has one template, so the page that a browser loads and the parts that it updates
can't differ.
Rule 2: a page has at most ``PORTS_A_PAGE`` Service ports, whatever the size of the cluster.
Rule 3: the page about an incident shows the state at one moment, and needs no script.
Rule 4: without scripts, a page that reloads itself has no input field, because a reload would
discard the input.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from jinja2 import Environment, PackageLoader, Template
from markupsafe import Markup, escape

from ..diagnosis.incidents import Incidents
from ..diagnosis.paths import format_probes
from ..diagnosis.problems import summarise_node
from ..diagnosis.rules import is_silent
from ..facts import (
    HealthCheckFacts,
    IgnoredFacts,
    IncidentFacts,
    Level,
    PortFacts,
    PortState,
    Problem,
    RejectedFacts,
    StatusFacts,
)
from ..facts.units import plural
from ..secrets import without_secrets
from .chart import Chart, Sparkline, draw, make_chart
from .history import Figures
from .incident_words import MAY_LOSE, headline, time_of_day
from .markup import Affected, Parts, make_environment
from .overview import Overview, make_overview
from .port_rows import make_row
from .rows import Columns, Row, columns_of
from .sampling import Sample
from .selection import Chosen, ListPart, Selection, part_of, row_id, select
from .timeline import Event

PORTS_A_PAGE = 100
IGNORED_SHOWN = 100
HEALTH_CHECKS_SHOWN = 100
EVENTS_SHOWN = 50
INCIDENTS_SHOWN = 10
PORTS_SHOWN = 200
ENDPOINTS_SHOWN = 100
"""The maximum number of endpoints on the page about one incident."""
PARTS = (
    "state", "figures", "problems", "mistakes", "incidents", "states", "count", "overview",
    "events", "columns", "pages", "ignored", "checks", "workers", "facts", "age",
)  # fmt: skip
"""The ids of the parts other than rows; each has a template of the same name."""
_UNKNOWN = PortState.UNKNOWN


@dataclass(frozen=True, slots=True)
class Page:
    """The content that the templates show."""

    view: StatusFacts
    level: Level
    mark: Level | None
    """The level that the heading shows; None if nothing shows whether all clients are answered."""
    verdict: str
    problems: tuple[Problem, ...]
    """The problems of the node; the problems of Service ports are in their rows."""
    mistakes: Mapping[str, RejectedFacts]
    """Objects of the source with mistakes, by the ``kind`` of their :class:`Problem`."""
    incidents: Sequence[IncidentFacts]
    """Causes that affect several of the selected Services."""
    more_incidents: int
    overview: Overview
    rows: tuple[Row, ...]
    columns: Columns
    chosen: Chosen
    ignored: tuple[IgnoredFacts, ...]
    health_checks: tuple[HealthCheckFacts, ...]
    """The first ``HEALTH_CHECKS_SHOWN`` health checks that the search selects."""
    more_health_checks: int
    selection: Selection
    part: ListPart[PortFacts]
    now: float
    rates: Figures
    has_rates: bool
    sparkline: Sparkline | None
    """The chart of the last minute; None without traffic."""
    chart: Chart | None
    """The chart of the last ten minutes; None without traffic."""
    events: Sequence[Event]
    """The events, the newest first."""

    @property
    def title(self) -> str:
        """The title. It begins with the state, because a narrow tab shows only the beginning."""
        word = {Level.OK: "OK: ", Level.ATTENTION: "Attention: ", Level.TROUBLE: "Trouble: "}
        shown = word[self.mark] if self.mark else ""
        return f"{shown}{self.view.node or 'this node'}, userspace-proxy"

    @property
    def probes(self) -> str:
        """The text about probes that choose the path; empty if no endpoint is probed."""
        return format_probes(self.view.probes)


def render_page(sample: Sample, selection: Selection) -> bytes:
    """Return the page as HTML in UTF-8.

    A page of 100 Service ports takes some 20 ms, and judging 10,000 some 50 ms: call this
    in a thread.
    """
    page = build_page(sample, selection)
    parts = render_parts(page)
    return render_template(
        "status",
        page=page,
        view=page.view,
        asked=selection,
        html=parts.markup,
        title=page.title,
        level=page.level,
        at=parts.at,
        root="",
    )


def render_parts(page: Page) -> Parts:
    """Return each part of a page as markup, without secrets and surrogates."""
    content = {
        "page": page,
        "view": page.view,
        "columns": page.columns,
        "rows": page.rows,
        "part": page.part,
        "listed": "Services",
        "empty": "empty.html",
        "has_rates": page.has_rates,
        "asked": page.selection,
        "mark": page.mark,
        "heading": page.view.node or "This node",
        "verdict": page.verdict,
    }
    html = {name: _template(name).render(content) for name in PARTS}
    row = _template("row")
    html |= {one.id: row.render(content, row=one) for one in page.rows}
    return Parts(
        title=_encoded(page.title).decode(),
        level=page.level,
        html={name: _encoded(text).decode() for name, text in html.items()},
        at=time_of_day(page.now),
        rows=tuple(one.id for one in page.rows),
    )


def build_page(sample: Sample, selection: Selection) -> Page:
    """Return the content of the page, without its markup."""
    view, now, history = sample.view, sample.now, sample.history
    summary, known = summarise_node(view, now), Incidents(view)
    chosen = select(view, selection, history)
    part = part_of(chosen.ports, selection.page, PORTS_A_PAGE)
    is_alone = len(part.items) == 1
    incidents = known.at(chosen.ports, least=2)
    said = {one.id for one in incidents[:INCIDENTS_SHOWN]}
    rows = []
    for one in part.items:
        id_ = row_id(one.plan.key)
        rows.append(
            make_row(
                one,
                history,
                now=now,
                link=selection.toggled(id_),
                incident=_incident_of(one, known, said),
                # A single search result is expanded unless the user has collapsed it.
                is_open=(id_ in selection.open) is not (is_alone and bool(selection.q)),
                is_alone=is_alone,
            )
        )
    checks, minute = chosen.health_checks, history.minute()
    overview, verdict = make_overview(view.ports, history), summary.verdict
    if doubted := sum(one.doubt is not None for one in view.ports):
        verdict = f"{verdict} {plural(doubted, 'Service port')} {MAY_LOSE}."
    mark: Level | None = summary.level
    # Cost: ports are looked at again only if some have this state.
    is_unknown = mark is Level.OK and any(word == _UNKNOWN for word, _, _ in overview.counts)
    if is_unknown and (unserved := sum(map(_is_unserved, view.ports))):
        mark, named = None, plural(unserved, "Service port")
        verdict = f"{verdict} Nothing shows whether all clients of {named} are answered."
    return Page(
        view=view,
        level=summary.level,
        mark=mark,
        verdict=verdict,
        problems=summary.problems,
        mistakes={f"source: {item.line}": item for item in view.source.rejected},
        incidents=incidents[:INCIDENTS_SHOWN],
        more_incidents=len(incidents[INCIDENTS_SHOWN:]),
        overview=overview,
        rows=tuple(rows),
        columns=columns_of(rows, selection.sort),
        chosen=chosen,
        ignored=chosen.ignored[:IGNORED_SHOWN],
        health_checks=checks[:HEALTH_CHECKS_SHOWN],
        more_health_checks=max(0, len(checks) - HEALTH_CHECKS_SHOWN),
        selection=selection,
        part=part,
        now=now,
        rates=history.rates(),
        has_rates=history.has_rates,
        sparkline=None if minute is None else draw(minute),
        chart=make_chart(history, now),
        events=sample.events[:EVENTS_SHOWN],
    )


def _is_unserved(port: PortFacts) -> bool:
    # Failures on the userspace path show nothing about clients on the kernel path.
    has_clients = port.is_unserved or is_silent(port)
    return port.state.word is _UNKNOWN and has_clients and not port.is_unseen


def _incident_of(port: PortFacts, known: Incidents, said: Collection[str]) -> str:
    """Return the path of the listed incident with a Service port's first cause; or empty.

    Args:
        said: The ids of the incidents that the page lists.
    """
    ids = known.ids(port) if said else {}
    first = ids.get(port.state.causes[0].fact) if ids else None
    return f"incidents/{first}" if first in said else ""


def _breakable(address: str) -> Markup:
    """Return an address with line breaks allowed between IPv6 groups and after a scheme."""
    text = escape(address).replace("//", Markup("//<wbr>"))
    return text.replace(":", Markup(":<wbr>")) if "[" in address else text


def _encoded(text: str) -> bytes:
    # Names from a manifest may contain surrogates, which UTF-8 can't encode.
    return without_secrets(text).encode("utf-8", "replace")


@cache
def _environment() -> Environment:
    environment = make_environment(PackageLoader(__package__ or ""))
    environment.filters["address"] = _breakable
    environment.globals["ignored_shown"] = IGNORED_SHOWN
    return environment


@cache
def _template(name: str) -> Template:
    return _environment().get_template(f"{name}.html")


def render_template(name: str, **content: object) -> bytes:
    """Render a template as HTML in UTF-8, without secrets."""
    return _encoded(_template(name).render(content))


def render_incident(sample: Sample, id_: str) -> bytes | None:
    """Return the page about an incident as HTML in UTF-8; None if there is no such incident."""
    known = Incidents(sample.view)
    incident = known.find(id_)
    return None if incident is None else _render_incident(sample, incident, known.ports(incident))


def render_no_incident(sample: Sample) -> bytes:
    """Return the page about an incident that is over."""
    return _render_incident(sample, None, ())


def _render_incident(
    sample: Sample, incident: IncidentFacts | None, ports: Sequence[PortFacts]
) -> bytes:
    node = sample.view.node or "this node"
    heading = headline(incident, sample.now) if incident else "This is over"
    level = incident.level if incident else Level.OK
    mark = incident.mark if incident else Level.OK
    state = _template("state").render(mark=mark, heading=heading, verdict="")
    nodes = {one.address: one.node for port in ports for one in port.endpoints}
    addresses = incident.endpoints if incident else ()
    return render_template(
        "incident_page",
        asked=None,
        html={"state": Markup(state)},
        root="../",
        title=f"{heading}: {node}, userspace-proxy",
        level=level,
        node=node,
        incident=incident,
        command=incident.command if incident else "",
        seen_by=(),
        now=sample.now,
        endpoints=[(one, "", nodes.get(one, "")) for one in addresses[:ENDPOINTS_SHOWN]],
        affected=[_affected(port) for port in ports[:PORTS_SHOWN]],
        more_touched=len(ports[PORTS_SHOWN:]),
    )


def _affected(port: PortFacts) -> Affected:
    return Affected(
        port.title,
        _link_to(port),
        port.mark,
        neutral=port.neutral_reason,
        tag=port.side,
        word=port.state.word,
    )


def _link_to(port: PortFacts) -> str:
    """Return the link to a port's Service, relative to the page about an incident."""
    link = Selection().link(q=f"service:{port.namespace}/{port.service}")
    return f"../{link.removeprefix('./')}"
