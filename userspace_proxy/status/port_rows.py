"""Builds the row of a Service port of one proxy, and its details when expanded.

Rule 1: words and figures are formatted here and in ``units``; templates only lay them out.
Rule 2: an expanded row has at most ``ENDPOINTS_SHOWN`` endpoints, and states how many it omits; a
single row shows more.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..causes.say import say
from ..diagnosis.dated import last_answer
from ..diagnosis.paths import format_counted, format_path
from ..facts import EndpointFacts, FrontendFacts, Level, PortFacts
from ..facts.units import format_ejected, format_seconds, format_waits, plural
from ..policy.usable import EndpointState
from .chart import Chart, draw, make_chart
from .history import History
from .rows import DOTS_SHOWN, Row, figures_of
from .selection import row_id

# The maximum number of endpoints in an expanded row: a full page of such rows is about 1 MB of
# HTML. The page about a single port shows more.
ENDPOINTS_SHOWN = 20
ENDPOINTS_SHOWN_ALONE = 1000
FRONTENDS_SHOWN = 20
NETWORKS_SHOWN = 8
_FINE = (Level.OK, None)


@dataclass(frozen=True, slots=True)
class EndpointRow:
    """One endpoint on the page."""

    endpoint: EndpointFacts
    level: Level | None
    """The level that the mark shows; None for a neutral mark (:meth:`.PortFacts.mark_of`)."""
    state: str
    share: int
    """The endpoint's percentage of the Service port's connections."""


@dataclass(frozen=True, slots=True)
class Expanded:
    """The details in an expanded row."""

    port: PortFacts
    last: str
    """The age of the last answer: ``last answer 2 min ago``; see :func:`.last_answer`."""
    endpoints: tuple[EndpointRow, ...]
    more_endpoints: str
    """The omitted endpoints, as ``9 more endpoints, all ready``; empty if none are."""
    frontends: Sequence[FrontendFacts]
    more_frontends: int
    admits: str
    """The admitted networks, in words; empty if all or none are admitted."""
    path: str
    """The path of new connections, its age and its reason, in words; empty for the default path."""
    counted: str
    """How many connections the kernel sent straight to endpoints, as far as known, in words; or
    empty."""
    connect: str
    """How long clients waited until an endpoint answered, in words; empty if unknown."""
    first_byte: str
    """How long the endpoint took to send its first byte, in words; empty if unknown."""
    chart: Chart | None
    """The chart of its traffic; None without traffic."""


def make_row(
    port: PortFacts,
    history: History,
    *,
    now: float,
    link: str = "",
    incident: str = "",
    is_open: bool = False,
    is_alone: bool = False,
) -> Row:
    """Return the row of a Service port.

    Args:
        now: Unix time.
        link: The link of the port's name.
        incident: The link to the page that states the port's cause; or empty.
        is_open: Whether the row is expanded.
        is_alone: Whether it is the only row on the page; its details may then be longer.
    """
    key, state = port.plan.key, port.state
    minute = history.minute(key)
    limit = ENDPOINTS_SHOWN_ALONE if is_alone else ENDPOINTS_SHOWN
    chart = make_chart(history, now, key, has_steps=is_alone) if is_open else None
    is_served = state.level is Level.OK and state.word == "served"
    words, says = _words(port, now, is_served=is_served)
    tags = [port.protocol] if port.shared_number or port.protocol != "TCP" else []
    return Row(
        id=row_id(key),
        level=state.level,
        mark=port.mark,
        neutral=port.neutral_reason,
        namespace=port.namespace,
        service=port.service,
        port=port.port,
        title=port.title,
        link=link,
        tags=(*tags, *([port.side] if port.side else [])),
        address=port.frontends[0].address if port.frontends else "",
        dots=tuple(map(port.mark_of, port.endpoints[:DOTS_SHOWN])),
        serving=port.serving,
        endpoints=len(port.endpoints),
        words=state.word if incident else words,
        says=state.sentence if incident else says,
        words_link=incident,
        is_sentence=bool(says) and not is_served,
        has_cause=bool(state.causes) or state.level is not Level.OK,
        figures=figures_of(port, history.rates(key)),
        sparkline=None if minute is None else draw(minute),
        is_folded=not is_open,
        detail=_detail(port, limit, chart, now) if is_open else None,
    )


def _words(port: PortFacts, now: float, *, is_served: bool) -> tuple[str, str]:
    """Return the text of a Service port's state, and its tooltip, which may be empty."""
    state, last = port.state, last_answer(port, now)
    if state.causes and state.word != "holding":
        why = say(state.causes[0])
        return why, why if is_served else state.sentence
    if not is_served:
        return state.sentence, state.sentence
    pinned = port.affinity_timeout_s
    clients = "" if pinned is None else f"clients pinned {format_seconds(pinned)}"
    return ", ".join(filter(None, (state.word, port.balance, clients, last))), ""


def _detail(port: PortFacts, limit: int, chart: Chart | None, now: float) -> Expanded:
    total = sum(endpoint.connections for endpoint in port.endpoints)
    rows = [_endpoint(port, endpoint, total) for endpoint in port.endpoints]
    more = ""
    if len(rows) > limit:
        # Show problems first; sorting is stable.
        rows.sort(key=lambda row: row.level in _FINE)
        hidden = rows[limit:]
        ready = sum(row.level in _FINE for row in hidden)
        how_many = "all" if ready == len(hidden) else f"{ready:,} of them"
        more = f"{plural(len(hidden), 'more endpoint')}, {how_many} ready"
    return Expanded(
        port=port,
        last=last_answer(port, now),
        endpoints=tuple(rows[:limit]),
        more_endpoints=more,
        frontends=port.frontends[:FRONTENDS_SHOWN],
        more_frontends=max(0, len(port.frontends) - FRONTENDS_SHOWN),
        admits=_admits(port.admits or ()),
        path=""
        if port.has_default_path
        else format_path(port.path, port.path_reason, port.path_since, now),
        counted=format_counted(port),
        connect=format_waits(port.connect_times),
        first_byte=format_waits(port.first_byte_times),
        chart=chart,
    )


def _admits(networks: Sequence[str]) -> str:
    shown = ", ".join(networks[:NETWORKS_SHOWN])
    more = len(networks) - NETWORKS_SHOWN
    return f"{shown} and {plural(more, 'more network')}" if more > 0 else shown


def _endpoint(port: PortFacts, endpoint: EndpointFacts, total: float) -> EndpointRow:
    connections = endpoint.connections
    share = round(100 * connections / total) if 0 < connections <= total < math.inf else 0
    words = ", ".join(filter(None, (_state(endpoint), endpoint.preference)))
    return EndpointRow(endpoint, port.mark_of(endpoint), words, share)


def _state(endpoint: EndpointFacts) -> str:
    state, is_usable = endpoint.state, endpoint.is_usable
    if is_usable and endpoint.ejected_for_s is not None:
        return format_ejected(endpoint.ejected_for_s)
    if state == EndpointState.READY:
        return state if endpoint.serves else "ready, but connections fail"
    is_leaving = is_usable and state == EndpointState.TERMINATING
    return f"{state}, still serving" if is_leaving else state
