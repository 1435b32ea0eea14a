"""Mutants of the data plane, by an outsider: see ``mutant_table``."""

from __future__ import annotations

from collections.abc import Mapping

from .mutant_table import Mutant

MUTANTS: Mapping[str, Mutant] = {
    "endpoint-that-speaks-first-is-not-heard": Mutant(
        "tcp",
        "        if events & _READABLE:\n            self._on_endpoint(events)\n",
        "",
    ),
    "limit-that-is-added-has-no-effect": Mutant(
        "balancers",
        "            or serving.handling.max_connections != old.handling.max_connections\n",
        "",
    ),
    "room-does-not-learn-that-clients-differ": Mutant(
        "endpoint_group",
        "            self.waiting_room.update(serving.handling.waits, "
        "is_uniform=serving.is_uniform)\n",
        "            self.waiting_room.update(serving.handling.waits)\n",
    ),
    "sweep-ends-with-the-last-flow": Mutant(
        "udp_flows",
        "        self._timer = (\n"
        "            self._engine.loop.call_later(_SWEEP_S, self._sweep) if "
        "len(self.table) else None\n"
        "        )\n",
        "        if len(self.table):\n"
        "            self._timer = self._engine.loop.call_later(_SWEEP_S, self._sweep)\n",
    ),
    "flow-that-waits-again-begins-anew": Mutant(
        "udp_flow",
        "        since = None if self.waited is None else self.waited.since\n",
        "        since = None\n",
    ),
}
