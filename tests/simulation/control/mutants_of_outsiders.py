"""Mutants of the control half, by an outsider: see ``mutant_table``."""

from __future__ import annotations

from collections.abc import Mapping

from ..mutant_table import Mutant

MUTANTS: Mapping[str, Mutant] = {
    "move-of-a-listener-keeps-no-change": Mutant(
        "merging",
        "elif isinstance(message, MoveListener | CloseListener):",
        "elif isinstance(message, CloseListener):",
        package="plane",
    ),
    "deadline-of-the-chosen-is-not-cancelled": Mutant(
        "reception",
        "        guest.deadline.cancel()\n",
        "",
        package="plane",
    ),
    "clients-of-a-closed-group-wait-on": Mutant(
        "worker",
        "            group.update(Serving(handling=handling), self._dataplane",
        "            group.update(Serving(handling=group.serving.handling), self._dataplane",
        package="plane",
    ),
}
