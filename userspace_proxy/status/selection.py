"""The Service ports that a request selects: a filter, a page, a state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlencode

from ..plan import IgnoredService
from .problems import Level, judge
from .view import HealthCheckView, ServicePortView, StatusView

# Longer filters are cut: no name or address comes near it.
_MAX_FILTER = 200
SHOWN = ("all", "trouble")


@dataclass(frozen=True, slots=True)
class Selection:
    """What a request asks for; the same words as its query string."""

    q: str = ""
    """Words that all must occur in a name or an address, in any case; empty for all."""
    show: str = "all"
    """``all``, or ``trouble``: only what isn't well."""
    page: int = 1
    """From 1; past the end means the last."""
    refresh: bool = True
    """Whether the page loads itself again."""

    @classmethod
    def parse(cls, query: Mapping[str, str]) -> Selection:
        """Read a query string; what makes no sense means the default."""
        page = query.get("page", "")
        show = query.get("show", "")
        return cls(
            q=query.get("q", "").strip()[:_MAX_FILTER],
            show=show if show in SHOWN else "all",
            page=max(int(page), 1) if page.isascii() and page.isdigit() and len(page) < 10 else 1,
            refresh=query.get("refresh") != "off",
        )

    def link(self, **changes: object) -> str:
        """Return the relative address of the page with some of these changed.

        Defaults are left out, so the first page is ``./``.
        """
        wanted = {
            "q": self.q,
            "show": self.show,
            "page": self.page,
            "refresh": self.refresh,
            **changes,
        }
        query = {}
        if wanted["q"]:
            query["q"] = str(wanted["q"])
        if wanted["show"] != "all":
            query["show"] = str(wanted["show"])
        if wanted["page"] != 1:
            query["page"] = str(wanted["page"])
        if not wanted["refresh"]:
            query["refresh"] = "off"
        # Surrogates can't be written in an address; they stand for nothing there is.
        text = urlencode(query, errors="replace")
        return f"./?{text}" if text else "./"


@dataclass(frozen=True, slots=True)
class Chosen:
    """What a selection leaves of a view."""

    ports: tuple[ServicePortView, ...]
    """By namespace, Service, port, family and side; of all pages."""
    ignored: tuple[IgnoredService, ...]
    health_checks: tuple[HealthCheckView, ...]
    """Those with a problem first, then by Service."""


def select(view: StatusView, selection: Selection) -> Chosen:
    """Return the Service ports and ignored Services that a selection asks for."""
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
        tuple(sorted(ignored, key=lambda item: (item.service, item.port, item.reason))),
        tuple(sorted(health, key=lambda view: (not view.problem, view.check.service))),
    )


def _has_all(words: list[str], text: str) -> bool:
    folded = text.lower() if words else ""
    return all(word in folded for word in words)


def _text_of(port: ServicePortView) -> str:
    frontends = (str(frontend.address) for frontend in port.plan.frontends)
    endpoints = (str(verdict.address) for verdict in port.plan.endpoints)
    return "\n".join((str(port.plan.key.name), *frontends, *endpoints))
