"""Fills the templates: the dashboard's own, and those of a proxy's page.

Rule 1: what agents claim is text: it is escaped, what would hide or turn text around is written as
in JSON, and long ones are cut.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from userspace_proxy import status
from userspace_proxy.causes.say import remedy, say
from userspace_proxy.facts.units import (
    bytes_in_words,
    count_in_short,
    count_in_words,
    plural,
    seconds_in_words,
)
from userspace_proxy.model.quoting import printable, shell_word
from userspace_proxy.status.chart import HEIGHT, WIDTH
from userspace_proxy.status.incident_words import time_of_day
from userspace_proxy.status.overview import SHAPES
from userspace_proxy.status.search import QUALIFIERS

from ..endpoints import moment
from ..sums import bounded
from .look import incident_link, node_link, service_link, with_query

REFRESH_S = 5
_LONGEST = 2_000


def render(name: str, **content: object) -> bytes:
    """Return a template with some content, in UTF-8."""
    template = _environment().get_template(f"{name}.html")
    # Names that are read from JSON may contain surrogates.
    return template.render(content).encode("utf-8", "replace")


def cut(text: str) -> str:
    """Return a text, or the beginning of a long one."""
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def writes(function: Callable[..., str]) -> Callable[..., str]:
    """Return a function that writes its first argument, a number, within bounds."""

    def write(number: float, *words: str) -> str:
        return function(bounded(number), *words)

    return write


def _shown(value: object) -> object:
    """Return what is written of a value; names of several parts are no texts yet."""
    return value if isinstance(value, Markup | int | float) else printable(cut(str(value)))


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(__package__ or ""), PackageLoader(status.__name__)]),
        autoescape=True,
        finalize=_shown,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        bytes=writes(bytes_in_words),
        clock=lambda at: time_of_day(moment(at)),
        count=writes(count_in_words),
        incident_link=incident_link,
        node_link=node_link,
        plural=writes(plural),
        remedy=remedy,
        say=say,
        seconds=writes(seconds_in_words),
        service_link=service_link,
        shell_word=shell_word,
        short=writes(count_in_short),
    )
    environment.globals.update(
        of_all=True,
        qualifiers=QUALIFIERS,
        refresh_s=REFRESH_S,
        shapes=SHAPES,
        spark_height=HEIGHT,
        spark_width=WIDTH,
        with_query=with_query,
    )
    return environment
