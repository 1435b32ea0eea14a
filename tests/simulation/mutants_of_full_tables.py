"""Mutants of flows that need places and source ports, or whose endpoint leaves or refuses."""

from __future__ import annotations

from collections.abc import Mapping

from .mutant_table import Mutant

MUTANTS: Mapping[str, Mutant] = {
    "largest-client-keeps-its-flows": Mutant(
        "flow_table",
        "for holders in (self._clients, self._networks, self._services):",
        "for holders in (self._networks, self._services):",
        package="policy",
    ),
    "largest-network-keeps-its-flows": Mutant(
        "flow_table",
        "for holders in (self._clients, self._networks, self._services):",
        "for holders in (self._clients, self._services):",
        package="policy",
    ),
    "largest-service-keeps-its-flows": Mutant(
        "flow_table",
        "for holders in (self._clients, self._networks, self._services):",
        "for holders in (self._clients, self._networks):",
        package="policy",
    ),
    "holder-below-its-share-stays-above": Mutant(
        "flow_table",
        "        if count == self._share:\n            del self._above[holder]\n",
        "",
        package="policy",
    ),
    "no-source-port-is-freed": Mutant(
        "udp",
        "                self._all_flows.free_source_ports(flow)\n",
        "",
    ),
    "one-source-port-is-freed": Mutant(
        "udp_flows",
        "for _ in range(1 + len(self.table) // _PORTS_PART):",
        "for _ in range(1):",
    ),
    "no-port-to-one-endpoint-is-none-to-any": Mutant(
        "udp",
        "if failed.failure is Failure.EXHAUSTED:",
        "if failed.failure in (Failure.EXHAUSTED, Failure.OUT_OF_PORTS):",
    ),
    "flow-is-dialled-for-without-memory": Mutant(
        "udp", "            if failed.failure is Failure.EXHAUSTED:\n                break\n", ""
    ),
    "flow-that-ends-makes-no-room": Mutant(
        "udp",
        "        if makes_room and self.group.waiting_room is not None:",
        "        if not makes_room and self.group.waiting_room is not None:",
    ),
    "lowered-places-are-kept": Mutant(
        "waiting_room",
        "            while len(clients) >= share:",
        "            if len(clients) >= share:",
    ),
    "lowered-hold-ends-none": Mutant(
        "waiting_room",
        "        self._hold = hold\n        self._is_uniform = is_uniform\n        self.retry()",
        "        self._hold = hold and (self._hold or hold)\n"
        "        self._is_uniform = is_uniform\n        self.retry()",
    ),
    "refused-flow-with-an-answer-stays": Mutant(
        "udp_flow",
        "if refusal and not (self.has_answer and refusal in _PASSING):",
        "if refusal and not self.has_answer:",
    ),
    "passing-error-ends-a-flow-with-an-answer": Mutant(
        "udp_flow",
        "if refusal and not (self.has_answer and refusal in _PASSING):",
        "if refusal:",
    ),
    "denied-is-no-refusal": Mutant(
        "udp_flow",
        "_REJECTED = {errno.EPERM, errno.EACCES, errno.ENOPROTOOPT}",
        "_REJECTED = {errno.EPERM, errno.ENOPROTOOPT}",
    ),
    "host-that-leaves-later-isnt-missed": Mutant(
        "udp_flows",
        "        self._asked.update(dict.fromkeys(present, self._clock()))\n",
        "",
    ),
    "flows-to-those-on-standby-stay": Mutant(
        "endpoint_group",
        "        self._end_flows(gone.difference(serving.leaving))\n",
        "        self._end_flows(removed.difference(serving.leaving))\n",
    ),
    "waiting-flows-arent-reported": Mutant(
        "waiting_room",
        "Waiting(len(self._clients), max(0.0, now - since))",
        "Waiting(len(self._clients.dialled), max(0.0, now - since))",
    ),
    "pins-stay-while-memory-is-short": Mutant(
        "shedding",
        "        excess -= self._pins.free(excess) + len(self._pins) * PIN_BYTES\n",
        "",
    ),
    "flows-are-added-while-memory-is-short": Mutant(
        "udp_flows",
        "            self._engine.memory.is_short\n            and",
        "            self.table.is_full\n            and",
    ),
}
