"""Defines the rows of Service ports, for one proxy or for all nodes, and their columns.

    one proxy ──PortFacts───▶ port_rows ─────────┐
                                                 ├─▶ Row ──▶ row.html
    all nodes ──MergedPort──▶ nodes.dashboard ───┘

Rule 1: a figure is declared as a row of ``FIGURES``, from which its heading, its cell and its order
follow, on the page of one proxy and on the page of all nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from ..facts import Level
from ..facts.units import count_in_short, format_bytes, format_rate
from .chart import Sparkline
from .history import Figures

DOTS_SHOWN = 6
# How many characters of namespace and name fit into their column on a screen of 1280 px.
NAME_SHOWN = 28
_ALWAYS = ("name", "address", "endpoints", "state")


@dataclass(frozen=True, slots=True)
class FigureColumn:
    """A column of numbers."""

    name: str
    """A field of ``PortFacts``, and of the sums of nodes; for a rate, a field of ``Figures``."""
    heading: str
    write: Callable[[float], str]
    is_rate: bool = False
    moves: bool = False
    """Whether the figure is a rate or counts open objects; at zero, a sentence may use its cell."""
    colour: str = ""
    """A CSS class, used for values other than 0."""
    title: str = ""
    """The tooltip, which states what the total counts; empty if no total is shown."""


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
"""The columns of numbers, in this order, by the key that sorts the page by them."""
_MOVING = tuple(key for key, column in FIGURES.items() if column.moves)


def figures_of(counted: object, rates: Figures) -> dict[str, float]:
    """Return the numbers of a row, by the keys of ``FIGURES``.

    Args:
        counted: The counts: ``PortFacts``, or the sums of nodes.
    """
    return {
        key: getattr(rates if column.is_rate else counted, column.name)
        for key, column in FIGURES.items()
    }


@dataclass(frozen=True, slots=True)
class Row:
    """One Service port on a page."""

    id: str
    level: Level
    mark: Level | None
    """The level that the mark shows; None for a neutral mark."""
    neutral: str
    """The meaning of a neutral mark."""
    namespace: str
    service: str
    port: str
    """The name of the port; empty if it has none."""
    title: str
    """The full name."""
    link: str
    """The link of the name."""
    tags: tuple[str, ...]
    """The labels that distinguish the port from others with the same name."""
    address: str
    """The address that most clients dial; empty without an address."""
    dots: tuple[Level | None, ...]
    """The levels of the first endpoints."""
    serving: int
    """The number of endpoints that serve clients."""
    endpoints: int
    words: str
    """The text of the state."""
    says: str
    """The tooltip of the state; or empty."""
    figures: Mapping[str, float]
    """The numbers, by the keys of ``FIGURES``."""
    sparkline: Sparkline | None
    is_sentence: bool = False
    """Whether the state is a sentence, which needs space."""
    has_cause: bool = False
    """Whether the state contains a cause, which may take a second line."""
    words_link: str = ""
    """The link of the state; or empty."""
    minute: str = ""
    """The failures of the last minute, as text; empty if there were none."""
    nodes: str = ""
    """The number of nodes on which the port is ok, and the number of all nodes that have it."""
    is_folded: bool | None = None
    """Whether the row is collapsed; None if it can't be expanded."""
    detail: object = None
    """The details that ``detail.html`` shows; None while the row is collapsed."""

    @property
    def is_wide(self) -> bool:
        """Whether the state is a sentence that may use the space of moving figures, all zero."""
        return self.is_sentence and not any(self.figures[key] for key in _MOVING)

    @property
    def namespace_room(self) -> str:
        """A CSS class that keeps the beginning of the name visible; or empty."""
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
        """The number of columns that are rates or counts of open objects."""
        return sum(key in _MOVING for key in self)


def columns_of(rows: Iterable[Row], sort: str) -> Columns:
    """Return the columns of these rows, including the column by which they are sorted.

    A column whose figures are all zero is omitted, which leaves its space to causes. A rate is
    shown for a minute after it has become zero, so that columns don't flicker.
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
