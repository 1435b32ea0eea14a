"""Faults of reading the API that were planted to measure the simulation, and that it finds."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from ...mutant_table import Mutant

_source = partial(Mutant, package="sources.kubernetes")

MUTANTS: Mapping[str, Mutant] = {
    "api-another-kind-wakes-and-the-wait-stays-long": _source(
        "reflector",
        "            self._failures = 0\n            self._waiting.reschedule(0.0)",
        "            self._waiting.reschedule(0.0)",
    ),
    "api-cuts-are-counted-for-ever": _source(
        "reflector",
        "            self._cuts = 0\n            return None",
        "            return None",
    ),
    "api-watch-that-ends-late-is-trusted": _source(
        "reflector",
        "abs(ended - begun - int(requested_s)) <= _ON_TIME_S",
        "int(requested_s) - ended + begun <= _ON_TIME_S",
    ),
    "api-event-that-was-deleted-is-patched": _source(
        "recorder", '            series.name = ""\n        elif', "            pass\n        elif"
    ),
    "api-room-is-not-used": _source(
        "reflector",
        "failure is None and self._cache.has_room:",
        "failure is None and not self._cache:",
    ),
    "api-problem-of-a-long-list-is-silent": _source(
        "reflector",
        "            async with asyncio.timeout(self._timing.list_s):",
        "            async with asyncio.timeout(2 * self._timing.list_s):",
    ),
    "api-published-before-the-node-is-listed": _source(
        "source",
        "        if self._published is None and not is_node_known:\n            return\n",
        "",
    ),
    "api-node-is-waited-for-again": _source(
        "source", "if self._published is None and not is_node_known:", "if not is_node_known:"
    ),
    "api-refused-question-is-an-answer": _source(
        "reflector", "response.code >= 500 or response.code == 429", "response.code == 429"
    ),
}
