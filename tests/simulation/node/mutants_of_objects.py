"""Faults in what a node makes of objects that change, planted to measure the simulation."""

from __future__ import annotations

from collections.abc import Mapping

from ..mutant_table import Mutant

_ROUNDS = "agent.rounds"

MUTANTS: Mapping[str, Mutant] = {
    "slice-that-moves-stays-with-its-service": Mutant(
        "store",
        "            self.delete_slice(item.key)\n        elif old is not None:",
        "            del self._slices[item.key]\n        elif old is not None:",
        "cluster",
    ),
    "cluster-ip-that-appears-is-not-noticed": Mutant(
        "ownership",
        "            if now != before:\n                changed.add(ip)",
        "            if now is None:\n                changed.add(ip)",
        "plan",
    ),
    "health-check-of-a-deleted-service-stays": Mutant(
        "planner",
        "        checks = self._all_health_checks(again | gone)\n",
        "        checks = self._all_health_checks(again)\n",
        "plan",
    ),
    "node-ports-of-an-update-are-not-counted": Mutant(
        "served_ports",
        "        self._follow(served, before, {})\n",
        "        self._follow(served, plan.frontends, {})\n",
        _ROUNDS,
    ),
    "node-port-of-another-service-is-released": Mutant(
        "node_ports",
        "        for port in self._unused - self._uses.keys():\n",
        "        for port in self._unused:\n",
        _ROUNDS,
    ),
    "any-node-is-this-one": Mutant(
        "resources",
        '        query={"fieldSelector": f"metadata.name={name}"},\n        in_namespaces=False,',
        "        query={},\n        in_namespaces=False,",
        "sources.kubernetes",
    ),
    "copy-that-is-ready-wins": Mutant(
        "usable",
        "    return not endpoint.terminating, endpoint.ready, endpoint.serving, is_local",
        "    return endpoint.ready, not endpoint.terminating, endpoint.serving, is_local",
        "policy",
    ),
}
