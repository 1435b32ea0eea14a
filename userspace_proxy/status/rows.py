"""One line of the page for each Service port, what is shown when it is expanded, and the columns.

Rule 1: words and figures are made here and in ``units``; templates only place them.
Rule 2: an expanded row has at most ``ENDPOINTS_SHOWN`` endpoints, and states how many it leaves
out; on its own it shows more.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..diagnosis.dated import last_answer
from ..diagnosis.paths import counted_in_words, path_in_words
from ..facts import EndpointFacts, FrontendFacts, Level, PortFacts
from ..facts.units import ejected_in_words, plural, waits_in_words
from ..policy.usable import EndpointState
from .chart import Chart, Sparkline, draw, make_chart
from .history import Figures, History
from .selection import row_id

# A full page of such rows, all expanded, is about 1 MB of HTML; a single port shows more.
ENDPOINTS_SHOWN = 20
ENDPOINTS_SHOWN_ALONE = 1000
FRONTENDS_SHOWN = 20
NETWORKS_SHOWN = 8
DOTS_SHOWN = 6
# Letters of namespace and name that fit into their column on a screen of 1280 px.
NAME_SHOWN = 28
_FINE = (Level.OK, None)
_ALWAYS = ("name", "address", "endpoints", "state")
_MOVING = ("rate", "open", "in", "out")


@dataclass(frozen=True, slots=True)
class EndpointRow:
    """One endpoint as the page shows it."""

    endpoint: EndpointFacts
    level: Level | None
    """None: this node leaves it out by design."""
    state: str
    share: int
    """Its percentage of the Service port's connections."""


@dataclass(frozen=True, slots=True)
class Expanded:
    """What an expanded row shows."""

    endpoints: tuple[EndpointRow, ...]
    more_endpoints: str
    """How many are left out, in words; or empty."""
    frontends: Sequence[FrontendFacts]
    more_frontends: int
    admits: str
    """The networks that are admitted, in words; empty where all or none are."""
    path: str
    """How new connections travel, since when and why, in words; empty for the default."""
    counted: str
    """What is known of those that the kernel has led straight to endpoints; or empty."""
    connect: str
    """How long clients waited for an endpoint to answer, in words; or empty."""
    first_byte: str
    """How long the endpoint took for its first byte, likewise."""
    chart: Chart | None
    """What it carried; None if nothing."""


@dataclass(frozen=True, slots=True)
class Row:
    """One Service port as the page shows it."""

    id: str
    port: PortFacts
    dots: tuple[Level | None, ...]
    """The levels of the first endpoints."""
    rates: Figures
    last: str
    """When a client was last answered, in words; empty if that was a moment ago, or never."""
    sparkline: Sparkline | None
    detail: Expanded | None
    """None while the row is folded."""
    namespace_room: str = ""
    """How much of its column the namespace may take; empty: all that it needs."""

    @property
    def address(self) -> str:
        """The address that most clients dial; empty if there is none."""
        return self.port.frontends[0].address if self.port.frontends else ""


def make_row(
    port: PortFacts, history: History, *, is_open: bool, is_alone: bool, now: float
) -> Row:
    """Return the row of a Service port.

    Args:
        now: Unix time.
        is_open: It is expanded.
        is_alone: It is the only one on the page, so it may be long.
    """
    key = port.plan.key
    minute = history.minute(key)
    limit = ENDPOINTS_SHOWN_ALONE if is_alone else ENDPOINTS_SHOWN
    chart = make_chart(history, now, key, has_steps=is_alone) if is_open else None
    return Row(
        id=row_id(key),
        port=port,
        dots=tuple(endpoint.level for endpoint in port.endpoints[:DOTS_SHOWN]),
        rates=history.rates(key),
        last=last_answer(port, now),
        sparkline=None if minute is None else draw(minute),
        detail=_detail(port, limit, chart, now) if is_open else None,
        namespace_room=_namespace_room(port),
    )


def _namespace_room(port: PortFacts) -> str:
    """Return a class of the stylesheet: the beginning of the name always stays."""
    if len(port.namespace) + len(port.name) <= NAME_SHOWN:
        return ""
    return "most" if len(port.service) <= NAME_SHOWN // 3 else "half"


def _detail(port: PortFacts, limit: int, chart: Chart | None, now: float) -> Expanded:
    total = sum(endpoint.connections for endpoint in port.endpoints)
    rows = [_endpoint(port, endpoint, total) for endpoint in port.endpoints]
    more = ""
    if len(rows) > limit:
        # Problems are shown first; sorting is stable.
        rows.sort(key=lambda row: row.level in _FINE)
        hidden = rows[limit:]
        ready = sum(row.level in _FINE for row in hidden)
        how_many = "all" if ready == len(hidden) else f"{ready:,} of them"
        more = f"{plural(len(hidden), 'more endpoint')}, {how_many} ready"
    return Expanded(
        endpoints=tuple(rows[:limit]),
        more_endpoints=more,
        frontends=port.frontends[:FRONTENDS_SHOWN],
        more_frontends=max(0, len(port.frontends) - FRONTENDS_SHOWN),
        admits=_admits(port.admits or ()),
        path=""
        if port.has_default_path
        else path_in_words(port.path, port.path_why, port.path_since, now),
        counted=counted_in_words(port),
        connect=waits_in_words(port.connect_times),
        first_byte=waits_in_words(port.first_byte_times),
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
    return EndpointRow(endpoint, endpoint.level, words, share)


def _state(endpoint: EndpointFacts) -> str:
    state, is_usable = endpoint.state, endpoint.is_usable
    if is_usable and endpoint.ejected_for_s is not None:
        return ejected_in_words(endpoint.ejected_for_s)
    if state == EndpointState.READY:
        if is_usable:
            return state if endpoint.serves else "ready, but connections fail"
        # Traffic policy or hints send this node's clients to other endpoints.
        return "ready, not used"
    return f"{state}, still serving" if is_usable else state


class Columns(tuple[str, ...]):
    """The keys of the columns, in order."""

    __slots__ = ()

    @property
    def moving(self) -> int:
        """How many of them are rates, or numbers of what is open."""
        return sum(key in _MOVING for key in self)


def columns_of(rows: Iterable[Row], sort: str) -> Columns:
    """Return the columns of these rows, that of their order among them.

    Those of figures that are all zero leave their room to causes. What moves is shown for a minute
    after it was zero, so that columns don't come and go.
    """
    shown = {*_ALWAYS, sort.removeprefix("-")}
    for row in rows:
        port, rates = row.port, row.rates
        if row.sparkline is not None or any(rates):
            shown |= {"rate", "open", "in", "out", "minute"}
        if port.active:
            shown.add("open")
        if port.saved:
            shown.add("saved")
        if port.failed:
            shown.add("failed")
    if shown & {"in", "out"}:
        shown |= {"in", "out"}
    order = (*_ALWAYS, *_MOVING, "saved", "failed", "minute")
    return Columns(key for key in order if key in shown)
