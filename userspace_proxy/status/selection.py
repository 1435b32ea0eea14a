"""Parses a request's search, order, page and expanded rows, and selects the Service ports."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Generic, TypeVar
from urllib.parse import urlencode

from ..causes.say import say
from ..facts import (
    WORST_FIRST,
    HealthCheckFacts,
    IgnoredFacts,
    PortFacts,
    RejectedFacts,
    StatusFacts,
)
from ..model import PortKey, SocketAddress, pack_ip
from .history import IDLE, History
from .rows import FIGURES, FigureColumn
from .search import MAX_LENGTH, Search

_T = TypeVar("_T")

# How many rows can be expanded at the same time: the number of rows on a page.
_MAX_OPEN = 100


_Order = Callable[[PortFacts, History], Any]


def _by_figure(column: FigureColumn) -> _Order:
    if column.is_rate:
        return lambda one, history: getattr(history.rates(one.plan.key), column.name)
    return lambda one, _: getattr(one, column.name)


SORTS: dict[str, _Order] = {
    "state": lambda one, _: (WORST_FIRST.index(one.state.level), one.doubt is None),
    "name": lambda one, _: one.plan.key,
    "address": lambda one, _: address_in_order(one.frontends[0].address if one.frontends else ""),
    "nodes": lambda _one, _: 0,
    "endpoints": lambda one, _: len(one.plan.serving.endpoints),
    **{key: _by_figure(column) for key, column in FIGURES.items()},
}
"""The sort orders of the page; equal rows are sorted by name."""


def with_query(path: str, query: Mapping[str, object]) -> str:
    """Return an address with a query string of all values that aren't empty."""
    given = {name: str(value) for name, value in query.items() if value}
    # Replace surrogates, which a URL can't contain.
    return f"{path}?{urlencode(given, safe=',:/', errors='replace')}" if given else path


@dataclass(frozen=True, slots=True)
class Selection:
    """The query of a request; the fields have the names of the query parameters."""

    q: str = ""
    """The search expression, as for :class:`~.search.Search`; empty for all."""
    sort: str = "state"
    """A key of ``SORTS``; with ``-`` before it in descending order."""
    page: int = 1
    """The page's number, from 1; a number past the end means the last page."""
    open: tuple[str, ...] = ()
    """The ids of the rows that are expanded, or collapsed if rows are expanded by default."""
    refresh: bool = True
    """Whether the page reloads itself when scripts are disabled."""
    path: str = "./"
    """The address of the page without its query, quoted."""

    @classmethod
    def parse(cls, query: Mapping[str, str], path: str = "./") -> Selection:
        """Parse a query; an invalid value becomes the default."""
        page = query.get("page", "")
        sort = query.get("sort", "")
        opened = dict.fromkeys(part for part in query.get("open", "").split(",") if part)
        return cls(
            q=query.get("q", "").strip()[:MAX_LENGTH],
            sort=sort if sort.removeprefix("-") in SORTS else "state",
            page=max(int(page), 1) if page.isascii() and page.isdigit() and len(page) < 10 else 1,
            open=tuple(part for part in opened if part.isalnum())[:_MAX_OPEN],
            refresh=query.get("refresh") != "off",
            path=path,
        )

    def link(self, **changes: object) -> str:
        """Return the address of the page with some fields changed.

        Default values are omitted, so the first page is ``./``.
        """
        wanted = {**asdict(self), **changes}
        path = wanted.pop("path")
        defaults = asdict(Selection())
        query = {name: _text(value) for name, value in wanted.items() if value != defaults[name]}
        return with_query(path, query)

    def toggled(self, row: str) -> str:
        """Return the address of the page with one row expanded, or collapsed if it was expanded."""
        others = tuple(one for one in self.open if one != row)
        return self.link(open=others if row in self.open else (*others, row))

    def sorted_by(self, column: str) -> str:
        """Return the address of the page sorted by a column, reversed if it already is."""
        # Sort figures in descending order first, because the largest ones matter most.
        first = column if column in ("state", "name", "address") else f"-{column}"
        second = first[1:] if first.startswith("-") else f"-{first}"
        return self.link(sort=second if self.sort == first else first, page=1)


@dataclass(frozen=True, slots=True)
class ListPart(Generic[_T]):
    """One page of a list."""

    items: Sequence[_T]
    page: int
    pages: int
    total: int
    """The number of items on all pages."""
    start: int
    """The index of the first item in the list."""

    @property
    def first(self) -> int:
        """The number of the first item, from 1; 0 if there are no items."""
        return self.start + 1 if self.items else 0

    @property
    def last(self) -> int:
        return self.start + len(self.items)


def part_of(items: Sequence[_T], page: int, size: int) -> ListPart[_T]:
    """Return a page of a list; a number past the end means the last page."""
    pages = max(1, -(-len(items) // size))
    number = min(page, pages)
    start = (number - 1) * size
    return ListPart(items[start : start + size], number, pages, len(items), start)


@dataclass(frozen=True, slots=True)
class Chosen:
    """The selected part of a view."""

    ports: tuple[PortFacts, ...]
    """The Service ports on all pages, in the order of the selection."""
    ignored: tuple[IgnoredFacts, ...]
    rejected: tuple[RejectedFacts, ...]
    """Objects with a mistake; empty unless the search selects some."""
    health_checks: tuple[HealthCheckFacts, ...]
    """Health checks with a problem first, each group by Service."""


def select(view: StatusFacts, selection: Selection, history: History = IDLE) -> Chosen:
    """Return the part of a view that a request selects."""
    search = Search.parse(selection.q)
    ports = list(view.ports)
    # Cost: with ten thousand Services, a search takes a tenth of the page's time.
    if search.terms:
        ports = [
            port
            for port in ports
            if search.matches_port(port, is_busy=history.is_busy(port.plan.key))
        ]
    order = SORTS[selection.sort.removeprefix("-")]
    ports.sort(key=lambda one: one.plan.key)
    ports.sort(key=lambda one: order(one, history), reverse=selection.sort.startswith("-"))
    ignored = filter(search.matches_ignored, view.ignored)
    rejected = filter(search.matches_rejected, view.source.rejected if search.terms else ())
    health = filter(search.matches_health_check, view.health_checks)
    return Chosen(
        tuple(ports),
        tuple(sorted(ignored, key=lambda item: (*item.key, item.port, say(item.cause)))),
        tuple(rejected),
        tuple(sorted(health, key=lambda check: (not check.problem, *check.key))),
    )


def row_id(key: PortKey) -> str:
    """Return the id of a Service port's row on the page; equal keys give equal ids."""
    return id_of((*key.name, str(key.family), key.side))


def id_of(words: Iterable[str]) -> str:
    """Return the id of a row, derived from the words that identify it."""
    name = "\n".join(words).encode("utf-8", "surrogatepass")
    return "p" + hashlib.blake2s(name, digest_size=6).hexdigest()


def address_in_order(address: str) -> tuple[int, bytes, int]:
    """Return a sort key that puts empty strings before names, and names before addresses."""
    try:
        dialled = SocketAddress.read(address)
        packed = pack_ip(dialled.ip)
    except (OSError, ValueError):
        return (0, address.encode("utf-8", "replace"), 0)
    return len(packed), packed, dialled.port


def _text(value: object) -> str:
    match value:
        case bool():
            return "off"
        case tuple():
            return ",".join(map(str, value))
    return str(value)
