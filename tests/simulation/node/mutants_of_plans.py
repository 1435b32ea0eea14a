"""Faults in what decides which endpoints serve where: planted to measure, and found."""

from __future__ import annotations

from collections.abc import Mapping

from ..mutant_table import Mutant

_ROUNDS = "agent.rounds"

MUTANTS: Mapping[str, Mutant] = {
    "local-policy-follows-hints": Mutant(
        "usable",
        "        local = _choose([item for item in sound if _is_local(item[2], facts)])",
        "        local = _choose([item for item in sound if _is_local(item[2], facts)], why_not)",
        "policy",
    ),
    "better-copy-in-an-unchanged-slice-is-overlooked": Mutant(
        "usable_changes",
        "is_listed_twice or _are_listed(touched, unchanged):",
        "is_listed_twice:",
        "policy",
    ),
    "endpoint-that-became-a-frontend-is-kept": Mutant(
        "usable_changes",
        "    if doubtful_ips:\n",
        "    if not kept and doubtful_ips:\n",
        "policy",
    ),
    "external-ip-that-is-this-nodes-own": Mutant(
        "claims",
        "    if ip in facts.addresses or ip in facts.primary_addresses:\n",
        "    if ip in facts.primary_addresses:\n",
        "plan",
    ),
    "service-that-gets-an-address-back-is-not-told": Mutant(
        "planner",
        "self._update_ports(again.union(gone, change.services), before)",
        "self._update_ports(again.union(gone), before)",
        "plan",
    ),
    "younger-service-takes-an-address": Mutant(
        "ownership",
        "(_PRECEDENCE[claimed[c.key].kind], c.created, c.key)",
        "(_PRECEDENCE[claimed[c.key].kind], c.key)",
        "plan",
    ),
    "drained-endpoint-counts-for-the-health-check": Mutant(
        "usable",
        "is_ready = endpoint.ready and endpoint.weight and _is_local",
        "is_ready = endpoint.ready and _is_local",
        "policy",
    ),
    "source-ranges-admit-clients-that-are-to-be-dropped": Mutant(
        "ports",
        "    return inside if ranges is None else _intersect(ranges, inside)",
        "    return inside if ranges is None else ranges",
        "plan",
    ),
    "client-with-the-address-that-it-dials-is-outside": Mutant(
        "ports", "(*facts.inside(claim.key.family), *own)", "facts.inside(claim.key.family)", "plan"
    ),
    "node-port-that-moved-is-released": Mutant(
        "node_ports",
        "        for port in self._unused - self._uses.keys():",
        "        for port in self._unused:",
        _ROUNDS,
    ),
    "last-health-check-port-stays-open": Mutant(
        "health_check_ports",
        "        if self._ports is None:\n"
        "            if not plan.health_checks:\n"
        "                return\n",
        "        if not plan.health_checks:\n            return\n        if self._ports is None:\n",
        "agent.watchers",
    ),
    "hints-choose-among-all-priorities": Mutant(
        "usable", "facts, by_priority=preferred)", "facts, by_priority=False)", "policy"
    ),
    "external-ip-that-is-free-again-is-not-served": Mutant(
        "ownership",
        "        again = [self.claims[key] for key in affected]\n",
        "        again: list[ServiceClaims] = []\n",
        "plan",
    ),
    "service-with-the-headless-label-is-served": Mutant(
        "ignored",
        "    if service.has_headless_label:\n        return has_headless_label()\n",
        "",
        "policy",
    ),
    "slice-that-moved-serves-both-services": Mutant(
        "store",
        "        if old is not None and old.service != item.service:\n"
        "            self.delete_slice(item.key)\n",
        "        if old is not None and old.service != item.service:\n            pass\n",
        "cluster",
    ),
    "node-that-dials-a-balancer-is-dropped": Mutant(
        "claims",
        "        return tuple(dict.fromkeys((*ranges, *map(own_network, own))))\n",
        "        return tuple(dict.fromkeys((*ranges, *map(own_network, own[1:]))))\n",
        "plan",
    ),
    "port-that-a-service-lost-stays": Mutant(
        "planner",
        "port in (*before.get(key, ()), *planned))",
        "port in (before.get(key, ()) if not planned else planned))",
        "plan",
    ),
    "external-ip-of-the-api-server": Mutant(
        "claims",
        "    if ip in facts.api_server_addresses:\n",
        "    if ip in facts.api_server_addresses[1:]:\n",
        "plan",
    ),
}
