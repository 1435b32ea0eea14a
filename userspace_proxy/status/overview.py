"""Builds the overview: one cell for each Service port, by namespace.

    shop ■■■▲■■✕■■   kube-system ■·   team-7 ·······

Adjacent cells of the same kind are one run of text, so that ten thousand cells are cheap to draw. A
cell's shape has the same meaning as its colour.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby

from ..facts import WORST_FIRST, Level, PortFacts
from .history import History

# Up to _LARGE cells are drawn large, and _DENSE cells or more are drawn small.
_LARGE = 150
_DENSE = 1500
# Cells with a problem are links if there are at most this many; otherwise, they also form runs.
_LINKED = 1000
SHAPES = {"busy": "■", "idle": "▫", "unused": "·", Level.ATTENTION: "▲", Level.TROUBLE: "✖"}
_WORST_FIRST = (*WORST_FIRST, None)


@dataclass(frozen=True, slots=True)
class Run:
    """Adjacent cells of one kind."""

    kind: str
    """The kind of cell, a key of ``SHAPES``."""
    cells: str
    port: str = ""
    """The Service port's name, if the run is a single port with a problem; otherwise empty."""
    says: str = ""
    """The tooltip: the Service port and its state."""


@dataclass(frozen=True, slots=True)
class Area:
    """The cells of one namespace."""

    namespace: str
    count: int
    unhealthy: int
    """The number of Service ports that need attention."""
    runs: tuple[Run, ...]


@dataclass(frozen=True, slots=True)
class Overview:
    """All cells, and the number of Service ports in each state."""

    areas: tuple[Area, ...]
    counts: tuple[tuple[str, Level | None, int], ...]
    """State, mark (``PortFacts.mark``) and number of ports; the worst first."""
    size: str
    """The size of the cells: ``large``, ``medium`` or ``small``."""


def make_overview(shown: Iterable[PortFacts], history: History) -> Overview:
    """Return the overview of all Service ports, which may be in any order."""
    ports = sorted(shown, key=lambda port: port.plan.key)
    counts: dict[tuple[Level | None, str], int] = {}
    for port in ports:
        kind = port.mark, port.state.word
        counts[kind] = counts.get(kind, 0) + 1
    unhealthy = sum(port.state.level is not Level.OK for port in ports)
    areas = [
        _area(namespace, list(members), history, is_linked=unhealthy <= _LINKED)
        for namespace, members in groupby(ports, key=lambda port: port.namespace)
    ]
    ordered = sorted(counts.items(), key=lambda item: (_WORST_FIRST.index(item[0][0]), -item[1]))
    return Overview(
        tuple(areas),
        tuple((word, mark, number) for (mark, word), number in ordered),
        size="large" if len(ports) <= _LARGE else "medium" if len(ports) < _DENSE else "small",
    )


def _area(
    namespace: str,
    members: list[PortFacts],
    history: History,
    *,
    is_linked: bool,
) -> Area:
    runs: list[Run] = []
    kinds = [(_kind(port, history), port) for port in members]
    for kind, group in groupby(kinds, key=lambda item: item[0]):
        same = list(group)
        if kind in ("busy", "idle", "unused") or not is_linked:
            runs.append(Run(kind, SHAPES[kind] * len(same)))
        else:
            runs += (Run(kind, SHAPES[kind], port.name, _says(port)) for _, port in same)
    unhealthy = sum(port.state.level is not Level.OK for port in members)
    return Area(namespace, len(members), unhealthy, tuple(runs))


def _says(port: PortFacts) -> str:
    return f"{port.title}: {port.state.word}"


def _kind(port: PortFacts, history: History) -> str:
    if port.state.level is not Level.OK:
        return port.state.level
    if port.mark is None:
        return "unused"
    is_busy = port.active > 0 or history.is_busy(port.plan.key)
    return "busy" if is_busy else "idle"
