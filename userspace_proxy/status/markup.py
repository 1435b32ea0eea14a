"""Creates the template environment for the pages of one proxy and of all nodes.

Rule 1: values are formatted in ``units`` and ``say``; templates only lay out the text.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from jinja2 import BaseLoader, Environment, StrictUndefined
from markupsafe import Markup

from ..causes.say import remedy, say
from ..facts import Level
from ..facts.units import (
    count_in_short,
    format_bytes,
    format_count,
    format_rate,
    format_seconds,
    plural,
)
from ..model.quoting import shell_word
from .chart import HEIGHT, WIDTH
from .history import STEPS
from .incident_words import client_effects, headline, time_of_day
from .overview import SHAPES
from .rows import FIGURES
from .search import QUALIFIERS

REFRESH_S = 5
NAMES_SHOWN = 200
"""The maximum number of nodes that are listed as having seen an incident."""


@dataclass(frozen=True, slots=True)
class Parts:
    """A page as markup."""

    title: str
    level: Level
    html: Mapping[str, str]
    """The HTML of each element, including rows, by the id of the element."""
    at: str
    """The time of day at which the contents were read."""
    rows: tuple[str, ...] | None = None
    """The ids of the rows, in order; None if a part contains them."""

    @property
    def markup(self) -> Mapping[str, Markup]:
        """The HTML in ``html``, marked as safe so that templates insert it without escaping."""
        return {name: Markup(text) for name, text in self.html.items()}


@dataclass(frozen=True, slots=True)
class Affected:
    """A Service, or one of its ports, on the page about an incident."""

    title: str
    link: str
    mark: Level | None
    neutral: str = "not known"
    """The meaning of a neutral mark."""
    tag: str = ""
    word: str = ""
    """The state in words; empty if there is nothing to report."""


def make_environment(
    loader: BaseLoader, finalize: Callable[[object], object] | None = None
) -> Environment:
    """Return the Jinja environment for this package's templates.

    Args:
        finalize: Converts each value before it is written; None to write values unchanged.
    """
    environment = Environment(
        loader=loader,
        autoescape=True,
        finalize=finalize,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        bytes=format_bytes,
        clock=time_of_day,
        count=format_count,
        headline=headline,
        client_effects=client_effects,
        plural=plural,
        rate=format_rate,
        remedy=remedy,
        say=say,
        seconds=format_seconds,
        shell_word=shell_word,
        short=count_in_short,
    )
    environment.globals.update(
        figure_columns=FIGURES,
        names_shown=NAMES_SHOWN,
        of_all=False,
        qualifiers=QUALIFIERS,
        refresh_s=REFRESH_S,
        shapes=SHAPES,
        spark_height=HEIGHT,
        spark_width=WIDTH,
        steps=STEPS,
    )
    return environment
