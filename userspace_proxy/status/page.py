"""Renders a view as HTML that needs no scripts, bounded in size.

    view ──▶ problems on top ──▶ Services, 100 ports a page ──▶ ignored ──▶ HTML

Rule 1: words and figures are made here and in ``units``; templates only place them.
Rule 2: whatever the size of the cluster, a page has at most ``PORTS_A_PAGE`` Service ports
and ``ENDPOINTS_SHOWN`` rows for each, and states how many it leaves out.
Rule 3: a page that reloads itself has no input field, as its content would be lost.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined

from ..plan import IgnoredService
from .port_state import Level, PortState, judge
from .problems import Problem, summarise
from .selection import Chosen, Selection, select
from .units import bytes_in_words, count_in_words, plural, seconds_in_words
from .view import (
    EndpointView,
    FrontendView,
    HealthCheckView,
    ServicePortView,
    StatusView,
    Traffic,
)

REFRESH_S = 5
PORTS_A_PAGE = 100
# A full page of such ports is about 1 MB of HTML; a single port shows more endpoints.
ENDPOINTS_SHOWN = 20
ENDPOINTS_SHOWN_ALONE = 1000
FRONTENDS_SHOWN = 20
NETWORKS_SHOWN = 8
IGNORED_SHOWN = 100
HEALTH_CHECKS_SHOWN = 100
# As many lines as fit on a screen; the filter shows the rest.
TROUBLE_SHOWN = 8


@dataclass(frozen=True, slots=True)
class EndpointRow:
    """One endpoint as the page shows it."""

    endpoint: EndpointView
    level: Level
    state: str


@dataclass(frozen=True, slots=True)
class PortBlock:
    """One Service port as the page shows it."""

    port: ServicePortView
    state: PortState
    endpoints: tuple[EndpointRow, ...]
    more_endpoints: str
    """How many are left out, in words; or empty."""
    frontends: tuple[FrontendView, ...]
    more_frontends: int
    admits: str
    """The networks that are admitted, in words; empty where all or none are."""


@dataclass(frozen=True, slots=True)
class Page:
    """The content for the template."""

    view: StatusView
    level: Level
    verdict: str
    problems: tuple[Problem, ...]
    """All of the node, and the first of Service ports."""
    ill_ports: int
    """How many Service ports have a problem."""
    blocks: tuple[PortBlock, ...]
    chosen: Chosen
    ignored: tuple[IgnoredService, ...]
    health_checks: tuple[HealthCheckView, ...]
    """As many of those that the filter selects as are shown."""
    more_health_checks: int
    selection: Selection
    page: int
    pages: int
    now: float
    traffic: Traffic
    """The sums over all Service ports."""

    @property
    def title(self) -> str:
        """The title, with the state first, because a narrow tab shows only the start."""
        word = {Level.OK: "OK", Level.ATTENTION: "Attention", Level.TROUBLE: "Trouble"}[self.level]
        return f"{word}: {self.view.node or 'this node'}, userspace-proxy"


def render_page(view: StatusView, *, now: float, selection: Selection) -> bytes:
    """Return the page as HTML in UTF-8.

    A page of 100 Service ports takes some 10 ms, and judging 10,000 some 50: call this
    in a thread.
    """
    page = build_page(view, now=now, selection=selection)
    text = _environment().get_template("status.html").render(page=page, selection=page.selection)
    # Names from a manifest may contain surrogates.
    return text.encode("utf-8", "replace")


def build_page(view: StatusView, *, now: float, selection: Selection) -> Page:
    """Return what the page shows, without its markup."""
    summary = summarise(view, now)
    ill = [problem for problem in summary.problems if problem.port]
    left_out = set(ill[TROUBLE_SHOWN:])
    chosen = select(view, selection)
    pages = max(1, -(-len(chosen.ports) // PORTS_A_PAGE))
    number = min(selection.page, pages)
    checks = chosen.health_checks
    shown = chosen.ports[(number - 1) * PORTS_A_PAGE : number * PORTS_A_PAGE]
    limit = ENDPOINTS_SHOWN_ALONE if len(shown) == 1 else ENDPOINTS_SHOWN
    return Page(
        view=view,
        level=summary.level,
        verdict=summary.verdict,
        problems=tuple(p for p in summary.problems if p not in left_out),
        ill_ports=len(ill),
        blocks=tuple(_block(port, limit) for port in shown),
        chosen=chosen,
        ignored=chosen.ignored[:IGNORED_SHOWN],
        health_checks=checks[:HEALTH_CHECKS_SHOWN],
        more_health_checks=max(0, len(checks) - HEALTH_CHECKS_SHOWN),
        selection=selection,
        page=number,
        pages=pages,
        now=now,
        traffic=_sum(port.traffic for port in view.ports),
    )


def _block(port: ServicePortView, limit: int) -> PortBlock:
    rows = [_row(endpoint) for endpoint in port.endpoints]
    more = ""
    if len(rows) > limit:
        # Problems are shown first; sorting is stable.
        rows.sort(key=lambda row: row.level is Level.OK)
        hidden = rows[limit:]
        ready = sum(row.level is Level.OK for row in hidden)
        how_many = "all" if ready == len(hidden) else f"{ready:,} of them"
        more = f"{plural(len(hidden), 'more endpoint')}, {how_many} ready"
    return PortBlock(
        port=port,
        state=judge(port),
        endpoints=tuple(rows[:limit]),
        more_endpoints=more,
        frontends=port.frontends[:FRONTENDS_SHOWN],
        more_frontends=max(0, len(port.frontends) - FRONTENDS_SHOWN),
        admits=_admits(port.plan.admits or ()),
    )


def _sum(parts: Iterable[Traffic]) -> Traffic:
    return Traffic(*map(sum, zip(Traffic(), *parts, strict=True)))


def _admits(networks: Sequence[str]) -> str:
    shown = ", ".join(networks[:NETWORKS_SHOWN])
    more = len(networks) - NETWORKS_SHOWN
    return f"{shown} and {plural(more, 'more network')}" if more > 0 else shown


def _row(endpoint: EndpointView) -> EndpointRow:
    state, is_usable = endpoint.verdict.reason, endpoint.verdict.is_usable
    if is_usable and endpoint.ejected_for_s is not None:
        if endpoint.ejected_for_s <= 0:
            return EndpointRow(endpoint, Level.TROUBLE, "ejected; the next client tries it")
        left = seconds_in_words(endpoint.ejected_for_s)
        return EndpointRow(endpoint, Level.TROUBLE, f"ejected for {left}")
    if state == "ready":
        # Traffic policy or hints send this node's clients to other endpoints.
        return EndpointRow(endpoint, Level.OK, state if is_usable else "ready, not used")
    if endpoint.is_left_out:
        return EndpointRow(endpoint, Level.OK, state)
    return EndpointRow(endpoint, Level.ATTENTION, f"{state}, still serving" if is_usable else state)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader(__package__ or ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        bytes=bytes_in_words, count=count_in_words, plural=plural, seconds=seconds_in_words
    )
    environment.globals.update(refresh_s=REFRESH_S, shown_ill=TROUBLE_SHOWN)
    return environment
