"""Generates a steady stream of changes, as in a busy cluster."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from .objects import SERVICE_CIDR, Spec

Change = tuple[str, str, Any]
"""A request's method, path and body."""

CYCLE = 50
_MAKE, _DELETE = 10, 35
_EMPTY, _FILL = (5, 25), (15, 45)
_KEPT = 3
"""The number of added Services that exist for a while: writes overtake each other, and a deletion
must not overtake the creation."""


@dataclass(slots=True)
class Churn:
    """A stream of changes: of 50, 44 only change endpoints, 4 remove or restore all endpoints of a
    Service, and 2 create or delete a Service.

    Args:
        specs: Services that may be changed.
        first_new: The number of the first created Service.
        rng: The source of randomness.
    """

    specs: Sequence[Spec]
    first_new: int
    rng: random.Random
    _emptied: list[Spec] = field(default_factory=list)
    _made: list[Spec] = field(default_factory=list)

    def changes(self, count: int) -> Iterator[Change]:
        """Yield this many changes."""
        for number in range(count):
            turn = number % CYCLE
            if turn == _MAKE:
                made = self.first_new + number // CYCLE
                spec = Spec(made, _ip_beyond(made))
                self._made.append(spec)
                yield "POST", spec.service_path, spec.service()
            elif turn == _DELETE and len(self._made) > _KEPT:
                yield _delete(self._made.pop(0))
            elif turn in _EMPTY:
                spec = self.rng.choice(self.specs)
                self._emptied.append(spec)
                yield _endpoints(spec, "")
            elif turn in _FILL:
                yield _endpoints(self._emptied.pop(0), "abc")
            else:
                some = "".join(self.rng.sample("abc", self.rng.choice((2, 3))))
                yield _endpoints(self.rng.choice(self.specs), some)

    def restoring_changes(self) -> Iterator[Change]:
        """Yield changes that give emptied Services endpoints again, and delete new Services."""
        for spec in self._emptied:
            yield _endpoints(spec, "abc")
        for spec in self._made:
            yield _delete(spec)


def _endpoints(spec: Spec, letters: str) -> Change:
    return "PATCH", spec.slice_path, {"endpoints": spec.endpoints(letters)}


def _delete(spec: Spec) -> Change:
    return "DELETE", f"{spec.service_path}/{spec.name}", None


def _ip_beyond(number: int) -> str:
    # No Service has an address at the end of the range: see make_specs.
    return f"{SERVICE_CIDR.partition('.0.0')[0]}.255.{number % 250 + 1}"
