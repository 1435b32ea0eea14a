"""A plan while it is drawn: what of it has been drawn so far, and by which numbers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from random import Random
from typing import Any

from .plan import Step


class Draft:
    """What was drawn of the plan of one seed.

    Args:
        features: What this run has; few kinds of faults (swarm).
    """

    def __init__(self, seed: int, rng: Random, features: set[str], chaos_s: float) -> None:
        self.seed = seed
        self.rng = rng
        self.features = features
        self.chaos_s = chaos_s
        self.steps: list[Step] = []

    def has(self, feature: str) -> bool:
        return feature in self.features

    @contextmanager
    def of_its_own(self, name: str) -> Iterator[None]:
        """Draw by other numbers, so that all else of the plan stays as it is without this."""
        before, self.rng = self.rng, Random(f"{self.seed}: {name}")
        try:
            yield
        finally:
            self.rng = before

    def moment(self) -> float:
        """Return a time, often just after another step."""
        if self.steps and self.rng.random() < 0.5:
            at = self.rng.choice(self.steps).at
            return at + self.rng.choice((0.0, 0.001, 0.005, 0.05, 1.0)) * self.rng.random()
        return self.rng.uniform(0.0, self.chaos_s)

    def step(self, at: float, kind: str, *values: Any) -> None:
        self.steps.append(Step(min(at, self.chaos_s), kind, values))

    def put(self, at: float, item: dict[str, Any]) -> None:
        """Have an object written."""
        self.steps.append(Step(at, "put", (), item))
