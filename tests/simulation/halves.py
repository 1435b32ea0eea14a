"""The simulated parts of the product, and how the plans of each are drawn, run and shrunk."""

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
        """The recorded events of the run; empty unless the run records them."""

    def run(self) -> list[str]:
        """Run the plan; return the violations in order."""


class Half(NamedTuple):
    """A simulated part of the product: the data plane, or everything on a node."""

    make_plan: Callable[[int], Any]
    world: Callable[..., Run]
    smaller_plans: Callable[[Any], Iterator[Any]]
    describe: Callable[[Any], Iterator[str]]
    """Returns the lines that describe a plan."""
    oracles: Sequence[str]
    """The oracles that judge in a campaign."""


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
