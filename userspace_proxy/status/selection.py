"""The Service ports that a request selects: a filter, a page, a state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from urllib.parse import urlencode

from ..plan import IgnoredService
from .port_state import Level, judge
from .view import HealthCheckView, ServicePortView, StatusView

# Longer filters are cut: all names and addresses are shorter.
_MAX_FILTER = 200
SHOWN = ("all", "trouble")


@dataclass(frozen=True, slots=True)
class Selection:
    """The query of a request; the fields are named as in the query string."""

    q: str = ""
    """Words that must all occur in a name or an address, in any case; empty for all."""
    show: str = "all"
    """``all``, or ``trouble`` for Service ports with a problem."""
    page: int = 1
    """From 1; past the end means the last."""
    refresh: bool = True
    """Whether the page reloads itself."""

    @classmethod
    def parse(cls, query: Mapping[str, str]) -> Selection:
        """Read a query string; invalid values mean the default."""
        page = query.get("page", "")
        show = query.get("show", "")
        return cls(
            q=query.get("q", "").strip()[:_MAX_FILTER],
            show=show if show in SHOWN else "all",
            page=max(int(page), 1) if page.isascii() and page.isdigit() and len(page) < 10 else 1,
            refresh=query.get("refresh") != "off",
        )

    def link(self, **changes: object) -> str:
        """Return the relative address of the page with some fields changed.

        Defaults are left out, so the first page is ``./``.
        """
        wanted = {**asdict(self), **changes}
        defaults = asdict(Selection())
        query = {
            name: "off" if name == "refresh" else str(value)
            for name, value in wanted.items()
            if value != defaults[name]
        }
        # Surrogates can't be written in an address, and no name contains one.
        return f"./?{urlencode(query, errors='replace')}" if query else "./"


@dataclass(frozen=True, slots=True)
class Chosen:
    """The selected part of a view."""

    ports: tuple[ServicePortView, ...]
    """By key; of all pages."""
    ignored: tuple[IgnoredService, ...]
    health_checks: tuple[HealthCheckView, ...]
    """Those with a problem first, then by Service."""


def select(view: StatusView, selection: Selection) -> Chosen:
    """Return the part of a view that a request selects."""
    words = selection.q.lower().split()
    ports = [
        port
        for port in view.ports
        if _has_all(words, _text_of(port))
        and (selection.show == "all" or judge(port).level is not Level.OK)
    ]
    ignored = [item for item in view.ignored if _has_all(words, f"{item.service}:{item.port}")]
    health = [
        view
        for view in view.health_checks
        if _has_all(words, f"{view.check.service}:{view.check.port}")
    ]
    return Chosen(
        tuple(sorted(ports, key=lambda port: port.plan.key)),
        tuple(sorted(ignored, key=lambda item: (item.service, item.port, str(item.cause)))),
        tuple(sorted(health, key=lambda view: (not view.problem, view.check.service))),
    )


def _has_all(words: list[str], text: str) -> bool:
    folded = text.lower() if words else ""
    return all(word in folded for word in words)


def _text_of(port: ServicePortView) -> str:
    frontends = (str(frontend.address) for frontend in port.plan.frontends)
    endpoints = (str(verdict.address) for verdict in port.plan.endpoints)
    return "\n".join((str(port.plan.key.name), *frontends, *endpoints))
