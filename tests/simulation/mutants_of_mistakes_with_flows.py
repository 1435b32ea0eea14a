"""Mutants of flows, written before it was known what would find them: see ``mutant_table``."""

from __future__ import annotations

from collections.abc import Mapping

from .mutant_table import Mutant

MUTANTS: Mapping[str, Mutant] = {
    "last-hop-passes": Mutant(
        "udp",
        "        if hops_left(hop_limit) <= 1:\n            self._drop_at_last_hop(flow.address)",
        "        if hops_left(hop_limit) < 1:\n            self._drop_at_last_hop(flow.address)",
    ),
    "wait-counts-as-age": Mutant(
        "udp",
        "        flow.sent_since = self.engine.reactor.now\n"
        "        self.table.use(flow, flow.sent_since)",
        "        self.table.use(flow, self.engine.reactor.now)",
    ),
    "those-tried-before-the-wait-stay-tried": Mutant(
        "udp_flow",
        "        self.tried, waited.is_on = None, True\n",
        "        waited.is_on = True\n",
    ),
    "evicted-flow-keeps-its-place": Mutant(
        "udp_flow",
        "            self.waited.is_on = False\n            room.left(self)\n",
        "            self.waited.is_on = False\n",
    ),
    "networks-count-for-ever": Mutant(
        "flow_table",
        "        for network in networks:\n            self._networks.remove(network)\n",
        "",
        package="policy",
    ),
    "flow-that-waits-is-idle": Mutant(
        "udp_flows",
        "            if not flow.is_waiting:\n"
        "                flow.listener.end(flow, EndReason.IDLE)",
        "            flow.listener.end(flow, EndReason.IDLE)",
    ),
    "sweep-stops-without-silent-flows": Mutant(
        "udp_flows",
        "self._engine.loop.call_later(_SWEEP_S, self._sweep) if len(self.table) else None",
        "self._engine.loop.call_later(_SWEEP_S, self._sweep) if len(self.silent) else None",
    ),
    "change-forgets-waits-at-limits": Mutant(
        "endpoint_group",
        "self.waiting_room.update(serving.handling.waits, is",
        "self.waiting_room.update(serving.handling.hold, is",
    ),
    "places-of-ipv6-arent-looked-up": Mutant(
        "locality",
        "            for version in self._lengths:\n",
        "            for version in (4,):\n",
        package="policy",
    ),
}
