"""Renders the parts of a page about all nodes, with a proxy's templates and its own.

    head and content ──▶ state, main, age ──┬─▶ the whole page
                                            └─▶ changes (``userspace_proxy.status.stream``)

Rule 1: everything that agents send is text: it is escaped, characters that hide or reverse text are
written as in JSON, and long strings are truncated.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cache

from jinja2 import ChoiceLoader, Environment, PackageLoader, Template
from markupsafe import Markup

from userspace_proxy import status
from userspace_proxy.facts import Level
from userspace_proxy.model.quoting import printable
from userspace_proxy.status.incident_words import time_of_day
from userspace_proxy.status.markup import Parts, make_environment
from userspace_proxy.status.selection import Selection, with_query

from .look import ClusterLook, incident_link, node_link, service_link

_LONGEST = 2_000


@dataclass(frozen=True, slots=True)
class PageHead:
    """The subject of a page."""

    look: ClusterLook
    asked: Selection
    title: str
    mark: Level | None
    """The level of the page's subject; None for a neutral mark."""
    heading: str
    verdict: str


def render(name: str, head: PageHead, **content: object) -> Parts:
    """Return the parts of a page; ``name`` is the template of its content."""
    look = head.look
    shown = {field.name: getattr(head, field.name) for field in fields(head)}
    content = {"now": look.now, "root": "/", **shown, **content}
    texts = {part: _template(part).render(content) for part in ("state", name, "age")}
    main = texts.pop(name)
    texts["main"] = f'<main id="main">\n{main}\n</main>'
    # Names that were read from JSON may contain surrogates, which UTF-8 can't encode: replace them.
    html = {part: text.encode("utf-8", "replace").decode() for part, text in texts.items()}
    return Parts(
        printable(cut(head.title)), head.mark or Level.ATTENTION, html, time_of_day(look.now)
    )


def page_of(parts: Parts, asked: Selection) -> bytes:
    """Return the whole page, in UTF-8."""
    text = _template("all_nodes").render(
        asked=asked,
        at=parts.at,
        html=parts.markup,
        level=parts.level,
        root="/",
        title=parts.title,
    )
    return text.encode("utf-8", "replace")


def cut(text: str) -> str:
    """Return a string, truncated if it is long."""
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def _shown(value: object) -> object:
    """Return a value for templates: short, printable text, unless it is a number or markup."""
    return value if isinstance(value, Markup | int | float) else printable(cut(str(value)))


@cache
def _environment() -> Environment:
    own, proxys = PackageLoader(__package__ or ""), PackageLoader(status.__name__)
    environment = make_environment(ChoiceLoader([own, proxys]), finalize=_shown)
    environment.filters.update(
        incident_link=incident_link, node_link=node_link, service_link=service_link
    )
    environment.globals.update(of_all=True, with_query=with_query)
    return environment


def _template(name: str) -> Template:
    return _environment().get_template(f"{name}.html")
