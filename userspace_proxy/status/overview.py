"""The overview: one cell for each Service port, by namespace.

    shop ■■■▲■■✕■■   kube-system ■·   team-7 ·······

Cells of the same kind are one run of text, so that ten thousand of them are cheap to draw. The
shape of a cell states what its colour does.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby

from .history import History
from .port_state import Level, PortState
from .view import ServicePortView

# Up to so many cells are drawn large, and from so many on small.
_LARGE = 150
_DENSE = 1500
# Each cell with a problem is a link; beyond this number they are runs as well.
_LINKED = 1000
SHAPES = {"busy": "■", "idle": "▫", Level.ATTENTION: "▲", Level.TROUBLE: "✖"}


@dataclass(frozen=True, slots=True)
class Run:
    """Cells of one kind."""

    kind: str
    """A key of ``SHAPES``."""
    cells: str
    port: str = ""
    """The name of the Service port if it is a single one with a problem; else empty."""
    word: str = ""
    """Its state."""


@dataclass(frozen=True, slots=True)
class Area:
    """The cells of one namespace."""

    namespace: str
    count: int
    ill: int
    """How many need attention."""
    runs: tuple[Run, ...]


@dataclass(frozen=True, slots=True)
class Overview:
    """All cells, and how many Service ports have each state."""

    areas: tuple[Area, ...]
    counts: tuple[tuple[str, Level, int], ...]
    """State, level, and number; the worst first."""
    size: str
    """``large``, ``medium`` or ``small``."""


def make_overview(
    judged: Iterable[tuple[ServicePortView, PortState]], history: History
) -> Overview:
    """Return the overview of all Service ports.

    Args:
        judged: Each Service port with its state, in any order.
    """
    ports = sorted(judged, key=lambda pair: pair[0].plan.key)
    counts: dict[tuple[Level, str], int] = {}
    for _, state in ports:
        counts[state.level, state.word] = counts.get((state.level, state.word), 0) + 1
    ill = sum(number for (level, _), number in counts.items() if level is not Level.OK)
    areas = [
        _area(namespace, list(members), history, is_linked=ill <= _LINKED)
        for namespace, members in groupby(ports, key=lambda pair: pair[0].plan.key.name.namespace)
    ]
    worst = (Level.TROUBLE, Level.ATTENTION, Level.OK)
    ordered = sorted(counts.items(), key=lambda item: (worst.index(item[0][0]), -item[1]))
    return Overview(
        tuple(areas),
        tuple((word, level, number) for (level, word), number in ordered),
        size="large" if len(ports) <= _LARGE else "medium" if len(ports) < _DENSE else "small",
    )


def _area(
    namespace: str,
    members: list[tuple[ServicePortView, PortState]],
    history: History,
    *,
    is_linked: bool,
) -> Area:
    runs: list[Run] = []
    kinds = [(_kind(port, state, history), port, state) for port, state in members]
    for kind, group in groupby(kinds, key=lambda item: item[0]):
        same = list(group)
        if kind in ("busy", "idle") or not is_linked:
            runs.append(Run(kind, SHAPES[kind] * len(same)))
        else:
            runs += (
                Run(kind, SHAPES[kind], str(port.plan.key.name), state.word)
                for _, port, state in same
            )
    ill = sum(state.level is not Level.OK for _, state in members)
    return Area(namespace, len(members), ill, tuple(runs))


def _kind(port: ServicePortView, state: PortState, history: History) -> str:
    if state.level is not Level.OK:
        return state.level
    is_busy = port.traffic.active > 0 or history.is_busy(port.plan.key)
    return "busy" if is_busy else "idle"
