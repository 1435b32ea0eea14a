"""A row of Service ports, of one proxy or of all nodes, and the columns.

    one proxy ──PortFacts───▶ port_rows ─────────┐
                                                 ├─▶ Row ──▶ row.html
    all nodes ──MergedPort──▶ nodes.dashboard ───┘

Rule 1: a new figure is a row of ``FIGURES``, from which its heading, its cell and its order follow,
on the page of one proxy and of all nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from ..facts import Level
from ..facts.units import count_in_short, format_bytes, format_rate
from .chart import Sparkline
from .history import Figures

DOTS_SHOWN = 6
# Letters of namespace and name that fit into their column on a screen of 1280 px.
NAME_SHOWN = 28
_ALWAYS = ("name", "address", "endpoints", "state")


@dataclass(frozen=True, slots=True)
class FigureColumn:
    """A column of numbers."""

    name: str
    """A field of ``PortFacts``, and of the sums of nodes; of a rate: of ``Figures``."""
    heading: str
    write: Callable[[float], str]
    is_rate: bool = False
    moves: bool = False
    """It shows what is open now: where that is nothing, a sentence may have its room."""
    colour: str = ""
    """A class of the style sheet, where it isn't 0."""
    title: str = ""
    """What it counts, where its total stands."""


FIGURES = {
    "rate": FigureColumn("connections", "conn/s", format_rate, is_rate=True, moves=True),
    "open": FigureColumn("active", "open", count_in_short, moves=True),
    "in": FigureColumn("received_bytes", "in/s", format_bytes, is_rate=True, moves=True),
    "out": FigureColumn("sent_bytes", "out/s", format_bytes, is_rate=True, moves=True),
    "saved": FigureColumn(
        "saved",
        "saved",
        count_in_short,
        colour="good",
        title="their first dial failed, and another endpoint answered: the clients noticed nothing",
    ),
    "failed": FigureColumn(
        "failed",
        "failed",
        count_in_short,
        colour="bad",
        title="clients that got no answer: no endpoint answered, or it ended them, or they waited "
        "until they left",
    ),
}
"""The columns of numbers, in order, by what the page can be sorted by."""
_MOVING = tuple(key for key, column in FIGURES.items() if column.moves)


def figures_of(counted: object, rates: Figures) -> dict[str, float]:
    """Return the numbers of a row.

    Args:
        counted: What has been counted: ``PortFacts``, or the sums of nodes.
    """
    return {
        key: getattr(rates if column.is_rate else counted, column.name)
        for key, column in FIGURES.items()
    }


@dataclass(frozen=True, slots=True)
class Row:
    """One Service port as a page shows it."""

    id: str
    level: Level
    mark: Level | None
    """Its level, for all observers; None for a neutral mark."""
    neutral: str
    """What a neutral mark stands for."""
    namespace: str
    service: str
    port: str
    """The name of the port, or empty."""
    title: str
    """The whole name."""
    link: str
    """The link of its name."""
    tags: tuple[str, ...]
    """What tells it from others of its name."""
    address: str
    """The address that most clients dial; empty if there is none."""
    dots: tuple[Level | None, ...]
    """The levels of the first endpoints."""
    serving: int
    """How many endpoints take connections."""
    endpoints: int
    words: str
    """Its state."""
    says: str
    """What a pointer shows of it; or empty."""
    figures: Mapping[str, float]
    """The numbers, by the keys of ``FIGURES``."""
    sparkline: Sparkline | None
    is_sentence: bool = False
    """Whether its state is a sentence, which needs room."""
    words_link: str = ""
    """The link of its state; or empty."""
    minute: str = ""
    """What went wrong in the last minute, in words; or empty."""
    nodes: str = ""
    """On how many nodes it is ok, of how many; empty on one."""
    is_folded: bool | None = None
    """Whether the row is collapsed; None: it can't be expanded."""
    detail: object = None
    """What ``detail.html`` places; None while the row is folded."""

    @property
    def is_wide(self) -> bool:
        """Whether its state may have the room of figures that are all zero."""
        return self.is_sentence and not any(self.figures[key] for key in _MOVING)

    @property
    def namespace_room(self) -> str:
        """A class of the style sheet, so that the beginning of the name stays; or empty."""
        name = f"{self.namespace}/{self.service}{f':{self.port}' if self.port else ''}"
        if len(self.namespace) + len(name) <= NAME_SHOWN:
            return ""
        return "most" if len(self.service) <= NAME_SHOWN // 3 else "half"


class Columns(tuple[str, ...]):
    """The keys of the columns, in order."""

    __slots__ = ()

    @property
    def figures(self) -> list[str]:
        return [key for key in self if key in FIGURES]

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
        if row.sparkline is not None:
            shown |= {*_MOVING, "minute"}
        found = {"nodes": row.nodes, **row.figures}
        shown |= {name for name, value in found.items() if value}
    if shown & {"in", "out"}:
        shown |= {"in", "out"}
    order = ("name", "address", "nodes", "endpoints", "state", *FIGURES, "minute")
    return Columns(key for key in order if key in shown)
