"""Faults of a node that show where clients wait for an endpoint."""

from __future__ import annotations

from collections.abc import Mapping

from ..mutant_table import Mutant

MUTANTS: Mapping[str, Mutant] = {
    "service-that-holds-refuses": Mutant(
        "serving",
        "        return self.has_none and self.handling.hold is None",
        "        return self.has_none",
        "model",
    ),
    "clients-wait-for-half-of-the-time": Mutant(
        "waiting_room",
        "overdue(self._reactor.now - self._hold.seconds, BATCH)",
        "overdue(self._reactor.now - self._hold.seconds / 2, BATCH)",
    ),
    "clients-wait-for-ever": Mutant(
        "waiting_room",
        "        self._end_overdue()\n        self._allowance",
        "        self._allowance",
    ),
}
