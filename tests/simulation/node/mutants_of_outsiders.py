"""Mutants of a whole node, by an outsider: see ``mutant_table``."""

from __future__ import annotations

from collections.abc import Mapping

from ..mutant_table import Mutant

MUTANTS: Mapping[str, Mutant] = {
    "port-that-is-gone-waits-for-a-listener": Mutant(
        "shortages",
        "        self.incomplete.pop(key, None)\n"
        "        self._shortages.lacks_nothing(key)\n"
        "        self._shortages.end(key, served_at=None)",
        "        self.incomplete.pop(key, None)\n        self._shortages.end(key, served_at=None)",
        package="agent.rounds",
    ),
    "listener-that-opens-late-is-not-steered-to": Mutant(
        "sync",
        "                if await self._retry():\n"
        "                    self._owes_round = is_due = True\n",
        "                await self._retry()\n",
        package="agent.rounds",
    ),
}
