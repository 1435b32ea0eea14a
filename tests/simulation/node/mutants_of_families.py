"""Faults of a node that show where Services have both IP families, or only IPv6."""

from __future__ import annotations

from collections.abc import Mapping

from ..mutant_table import Mutant

MUTANTS: Mapping[str, Mutant] = {
    "all-listeners-are-of-one-family": Mutant(
        "listen_addresses",
        "self._in_range(_WILDCARD[plan.frontends[0].family], port)",
        "self._in_range(_WILDCARD[IPFamily.IPV4], port)",
        "agent.rounds",
    ),
    "recovered-listeners-are-of-one-family": Mutant(
        "listen_addresses",
        "(frontend.protocol, SocketAddress(_WILDCARD[frontend.family], port))",
        "(frontend.protocol, SocketAddress(_WILDCARD[IPFamily.IPV4], port))",
        "agent.rounds",
    ),
    "node-ports-are-reserved-for-one-family": Mutant(
        "node_ports",
        "f: self.take(NodePort(f.protocol, f.family, f.port), now=now)",
        "f: self.take(NodePort(f.protocol, IPFamily.IPV4, f.port), now=now)",
        "agent.rounds",
    ),
    "source-ranges-of-the-other-family-restrict": Mutant(
        "claims",
        "    ranges = of_family(service.load_balancer_source_ranges, family)\n    if not ranges",
        "    ranges = service.load_balancer_source_ranges\n    if not ranges",
        "plan",
    ),
    "pods-of-both-families-count-twice": Mutant(
        "usable", "    return max(counts.values())", "    return sum(counts.values())", "policy"
    ),
    "family-that-is-given-up-stays": Mutant(
        "claims",
        "    return sorted({IPFamily.of(ip) for ip in service.cluster_ips})",
        "    ips = (*service.cluster_ips, *service.load_balancer_ips)\n"
        "    return sorted({IPFamily.of(ip) for ip in ips})",
        "plan",
    ),
    "addresses-of-the-node-are-of-one-family": Mutant(
        "facts",
        "    return tuple(dict.fromkeys((*of_family(pods, family), _LOOPBACK[family], *own)))",
        "    return tuple(dict.fromkeys((*pods[:1], _LOOPBACK[family], *own)))",
        "policy",
    ),
}
