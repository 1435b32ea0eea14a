"""The parts that are simulated: what runs a plan of each, draws one, and makes it smaller."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from .drawn_mutants import DrawnMutant, named
from .judgements import Judgements
from .mutant_table import Mutant


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
    "control": "tests.simulation.control",
    "api": "tests.simulation.node.api_slice",
    "table": "tests.simulation.node.table",
    "leases": "tests.simulation.node.leases",
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


def find_mutant(half: str, name: str) -> Mutant | DrawnMutant:
    """Return the mutant of a half's table with a name, or the one that is drawn by this label."""
    return named(name) if "/" in name else mutants(half)[name]


def mutants(name: str) -> Mapping[str, Mutant]:
    """Return the mutants that a half is to find; imports nothing that is simulated."""
    package = PACKAGES[name]
    folder = Path(__file__).parent.joinpath(*package.split(".")[2:])
    found: dict[str, Mutant] = {}
    for path in sorted(folder.glob("mutant*_*.py")):
        if path.stem == "mutant_table" or path.stem.startswith("mutants_of_"):
            found.update(importlib.import_module(f"{package}.{path.stem}").MUTANTS)
    return found
