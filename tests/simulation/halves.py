"""The two halves that are simulated: what runs a plan of each, draws one, and makes it smaller."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol

from .mutant_table import MUTANTS, Mutant


class Run(Protocol):
    """One run of a plan."""

    began: float

    @property
    def trace(self) -> list[tuple[float, str]]:
        """What happened, if it was to be noted."""

    def run(self) -> list[str]:
        """Carry the plan out; return what was wrong, the first first."""


class Half(NamedTuple):
    """The data plane, or the control half."""

    make_plan: Callable[[int], Any]
    world: Callable[..., Run]
    smaller_plans: Callable[[Any], Iterator[Any]]
    describe: Callable[[Any], Iterator[str]]
    """Returns lines about a plan."""


PACKAGES: Mapping[str, str] = {"data": "tests.simulation", "control": "tests.simulation.control"}


def load(name: str) -> Half:
    world, drawing, shrinking = (
        importlib.import_module(f"{PACKAGES[name]}.{module}")
        for module in ("world", "drawing", "shrinking")
    )
    return Half(drawing.make_plan, world.World, shrinking.smaller_plans, shrinking.describe)


def mutants(name: str) -> Mapping[str, Mutant]:
    """Return the mutants that a half is to find; imports nothing that is simulated."""
    if name == "data":
        return MUTANTS
    table = importlib.import_module(f"{PACKAGES[name]}.mutant_table")
    found: Mapping[str, Mutant] = table.MUTANTS
    return found
