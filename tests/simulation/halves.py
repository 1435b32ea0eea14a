"""The parts that are simulated: what runs a plan of each, draws one, and makes it smaller."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from .judgements import Judgements


class Run(Protocol):
    """One run of a plan."""

    began: float
    judgements: Judgements

    @property
    def trace(self) -> list[tuple[float, str]]:
        """What happened, if it was to be noted."""

    def run(self) -> list[str]:
        """Carry the plan out; return what was wrong, the first first."""


class Half(NamedTuple):
    """One of them: the data plane, or the control half, or a part of that."""

    make_plan: Callable[[int], Any]
    world: Callable[..., Run]
    smaller_plans: Callable[[Any], Iterator[Any]]
    describe: Callable[[Any], Iterator[str]]
    """Returns lines about a plan."""
    oracles: Sequence[str]
    """Those that judge in a campaign."""


PACKAGES: Mapping[str, str] = {
    "data": "tests.simulation",
    "node": "tests.simulation.node",
}


def load(name: str) -> Half:
    world, drawing, shrinking = (
        importlib.import_module(f"{PACKAGES[name]}.{module}")
        for module in ("world", "drawing", "shrinking")
    )
    oracles: Sequence[str] = getattr(world, "ORACLES", ())
    return Half(
        drawing.make_plan, world.World, shrinking.smaller_plans, shrinking.describe, oracles
    )
