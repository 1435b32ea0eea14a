"""A row of Service ports, of one proxy or of all nodes, and the columns.

    one proxy ──PortFacts───▶ port_rows ─────────┐
                                                 ├─▶ Row ──▶ row.html
    all nodes ──MergedPort──▶ nodes.dashboard ───┘

Rule 1: a new figure is a field of ``Row``, a column here, and a cell of ``row.html``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ..facts import Level
from .chart import Sparkline
from .history import Figures

DOTS_SHOWN = 6
# Letters of namespace and name that fit into their column on a screen of 1280 px.
NAME_SHOWN = 28
_ALWAYS = ("name", "address", "endpoints", "state")
_MOVING = ("rate", "open", "in", "out")
_LAST = ("saved", "failed", "minute")


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
    """Where the name leads."""
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
    rates: Figures
    open: int
    saved: int
    failed: int
    sparkline: Sparkline | None
    is_sentence: bool = False
    """Its state is one, which needs room."""
    words_link: str = ""
    """Where its state leads; or empty."""
    minute: str = ""
    """What went wrong in the last minute, in words; or empty."""
    nodes: str = ""
    """On how many nodes it is ok, of how many; empty on one."""
    is_folded: bool | None = None
    """None: it isn't one that can be expanded."""
    detail: object = None
    """What ``detail.html`` places; None while the row is folded."""

    @property
    def is_wide(self) -> bool:
        """Whether its state may have the room of figures that are all zero."""
        carried = self.open or any((self.rates.connections, *self.rates[1:3]))
        return self.is_sentence and not carried

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
        if row.sparkline is not None or any(row.rates):
            shown |= {"rate", "open", "in", "out", "minute"}
        found = {"nodes": row.nodes, "open": row.open, "saved": row.saved, "failed": row.failed}
        shown |= {name for name, value in found.items() if value}
    if shown & {"in", "out"}:
        shown |= {"in", "out"}
    order = ("name", "address", "nodes", "endpoints", "state", *_MOVING, *_LAST)
    return Columns(key for key in order if key in shown)
