"""Faults of a node that show where users have set something otherwise than by default."""

from __future__ import annotations

from collections.abc import Mapping

from ..mutant_table import Mutant

MUTANTS: Mapping[str, Mutant] = {
    "external-ip-of-any-network": Mutant(
        "claims",
        "    if not contains(facts.external_ip_networks, ip):\n",
        "    if not facts.external_ip_networks:\n",
        "plan",
    ),
    "all-primary-addresses-answer-at-node-ports": Mutant(
        "facts",
        "    return tuple(ip for ip in own if ip in primary or contains(ranges, ip))",
        "    return tuple(ip for ip in own if ip in primary or contains(ranges, ip)) or tuple(own)",
        "policy",
    ),
    "localhost-is-the-node": Mutant(
        "facts",
        "        ranges.append(_LOOPBACK[family])\n",
        "        ranges += map(own_network, own)\n",
        "policy",
    ),
    "pods-of-other-nodes-are-inside": Mutant(
        "node_facts",
        "(node.pod_networks if options.only_own_pods else ())",
        "(node.pod_networks if not options.only_own_pods else ())",
        "policy",
    ),
    "endpoints-at-the-node-are-refused": Mutant(
        "ports",
        "may_be_node=facts.allow_node_endpoints or claim.key.name.service == API_SERVER",
        "may_be_node=claim.key.name.service == API_SERVER",
        "plan",
    ),
    "state-that-is-too-old-is-served": Mutant(
        "last_state",
        "        if age_s > self._max_age_s:\n",
        "        if age_s > max(self._max_age_s, 86400.0):\n",
        "agent.watchers",
    ),
}
