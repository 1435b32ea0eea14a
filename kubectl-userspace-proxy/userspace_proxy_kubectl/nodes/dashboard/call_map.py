"""Lays out the map of calls: clients, Services and endpoints, in three columns.

    clients           Services             endpoints
    shop/cart-1 ─────▶ shop/web ──────────▶ 10.244.0.3:8080
    10.0.0.7 ────────▶ kube-system/dns ┈┈┈▶ 10.244.0.9:53

Rule 1: the map is bounded in size, and states how many items it omits: Services with problems and
the busiest Services are shown, with their clients and endpoints.
Rule 2: connected items are at similar heights in their columns, so few lines cross.
Rule 3: each colour has its own shape of marks or lines.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from userspace_proxy.facts import Level

SERVICES_MAX = 30
CLIENTS_MAX = 40
ENDPOINTS_MAX = 60
# The maximum length of a label; longer names are shortened, and their titles contain them in full.
_LABEL_MAX = 38
_ROW = 28
_TOP = 34
BOX = 300
"""The width of an item's box."""
_COLUMNS = (0, 410, 820)
WIDTH = _COLUMNS[-1] + BOX
_LEAST_HEIGHT = _TOP + 3 * _ROW
_THICKEST = 6.0


@dataclass(frozen=True, slots=True)
class Item:
    """A client, a Service or an endpoint."""

    name: str
    link: str = ""
    """The URL of the item's page; empty if there is none."""
    level: Level | None = None
    """The level of the item's state; None if the state is unknown."""
    title: str = ""
    x: int = 0
    y: int = 0
    """The vertical position in the map, once it is known."""

    @property
    def label(self) -> str:
        """The name, cut in the middle if it is long: a Deployment's pods differ at the end."""
        if len(self.name) <= _LABEL_MAX:
            return self.name
        half = _LABEL_MAX // 2
        return f"{self.name[: half - 1]}…{self.name[-(_LABEL_MAX - half) :]}"


@dataclass(frozen=True, slots=True)
class Line:
    """A line from an item to an item that it calls."""

    start: str
    end: str
    """Names of the items at both ends, in neighbouring columns."""
    calls: int
    """The number of connections, which determines the thickness of the line."""
    level: Level | None = Level.OK
    """The level of the calls; None if it isn't known whether they are answered."""
    title: str = ""
    path: str = ""
    """The SVG path of the line; empty until its items are placed."""

    @property
    def width(self) -> float:
        return min(_THICKEST, 1 + math.log10(1 + max(0, self.calls)))


@dataclass(frozen=True, slots=True)
class Calling:
    """All items that may be shown; in each column, the most important items first."""

    clients: Sequence[Item]
    services: Sequence[Item]
    endpoints: Sequence[Item]
    calls: Sequence[Line]
    """Lines from clients to Services."""
    serves: Sequence[Line]
    """Lines from Services to endpoints."""


@dataclass(frozen=True, slots=True)
class CallMap:
    """The laid-out map."""

    items: tuple[Item, ...]
    lines: tuple[Line, ...]
    height: int
    left_out: Mapping[str, int] = field(default_factory=dict)
    """The number of clients, Services and endpoints that were omitted."""
    heads: tuple[tuple[int, str], ...] = ()


def place(all_: Calling) -> CallMap:
    """Return the map of the items that fit."""
    services = all_.services[:SERVICES_MAX]
    chosen = {item.name for item in services}
    calls = [line for line in all_.calls if line.end in chosen]
    serves = [line for line in all_.serves if line.start in chosen]
    callers, serving = {line.start for line in calls}, {line.end for line in serves}
    clients = [item for item in all_.clients if item.name in callers]
    endpoints = [item for item in all_.endpoints if item.name in serving]
    left_out = {
        "client": len(clients[CLIENTS_MAX:]),
        "Service": len(all_.services[SERVICES_MAX:]),
        "endpoint": len(endpoints[ENDPOINTS_MAX:]),
    }
    clients, endpoints = clients[:CLIENTS_MAX], endpoints[:ENDPOINTS_MAX]
    clients = _beside(clients, services, [(line.end, line.start) for line in calls])
    endpoints = _beside(endpoints, services, [(line.start, line.end) for line in serves])
    columns = (clients, services, endpoints)
    height = max(_LEAST_HEIGHT, _TOP + _ROW * max(map(len, columns)))
    at = [_column(x, items, height) for x, items in zip(_COLUMNS, columns, strict=True)]
    lines = [
        *(_placed(line, at[0], at[1]) for line in calls),
        *(_placed(line, at[1], at[2]) for line in serves),
    ]
    heads = zip(_COLUMNS, ("Clients", "Services", "Endpoints"), strict=True)
    return CallMap(
        tuple(item for column in at for item in column.values()),
        tuple(filter(None, lines)),
        height,
        {what: number for what, number in left_out.items() if number},
        tuple(heads),
    )


def _beside(
    items: Sequence[Item], services: Sequence[Item], links: Iterable[tuple[str, str]]
) -> list[Item]:
    """Return items sorted by the mean position of the Services to which they are connected."""
    places = {item.name: place for place, item in enumerate(services)}
    of_item: dict[str, list[int]] = {}
    for service, name in links:
        of_item.setdefault(name, []).append(places[service])
    mean = {name: sum(found) / len(found) for name, found in of_item.items()}
    return sorted(items, key=lambda item: mean[item.name])


def _column(x: int, items: Sequence[Item], height: int) -> dict[str, Item]:
    """Return a column's items by name, spread over the height."""
    step = (height - _TOP) / max(1, len(items))
    return {
        item.name: replace(item, x=x, y=round(_TOP + step * (n + 0.5)))
        for n, item in enumerate(items)
    }


def _placed(line: Line, starts: Mapping[str, Item], ends: Mapping[str, Item]) -> Line | None:
    start, end = starts.get(line.start), ends.get(line.end)
    if start is None or end is None:
        return None
    x1, x2 = start.x + BOX, end.x
    middle = (x1 + x2) // 2
    path = f"M{x1} {start.y}C{middle} {start.y} {middle} {end.y} {x2} {end.y}"
    return replace(line, path=path)
