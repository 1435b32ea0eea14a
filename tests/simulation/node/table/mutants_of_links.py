"""Faults that show once a link leads to others than before: in, out, and both families."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from ...mutant_table import Mutant

_path = partial(Mutant, "kernel_path", package="steering.nftables")
_locality = partial(Mutant, "locality", package="policy")

MUTANTS: Mapping[str, Mutant] = {
    "link-that-leads-to-others-stays": _path(
        "self._table.change(have - want, want - have, self._keep_counts)",
        "self._table.change((), want - have, self._keep_counts)",
    ),
    "only-new-links-are-followed": _path("if numbers == before:", "if numbers <= before:"),
    "link-of-both-stays": _path(
        "self._table.change(have - want, want - have, self._keep_counts)",
        "self._table.change({e for e in have - want if len(e[1]) == 4}, want - have, "
        "self._keep_counts)",
    ),
    "bridge-of-a-lan-leads-to-containers": _locality("        and number not in lan\n", ""),
    "port-of-a-machine-is-one-of-a-lan": _locality(
        '_PORTS = (_CONTAINER, "tun")', "_PORTS = (_CONTAINER,)"
    ),
    "gateways-of-ipv6-are-none": _locality(
        "        if route.has_gateway:\n            with_gateway",
        '        if route.has_gateway and ":" not in route.network:\n            with_gateway',
    ),
    "networks-of-ipv6-are-one-address": _locality(
        "if _is_telling(network) and network.prefixlen < network.max_prefixlen:",
        "if _is_telling(network) and network.prefixlen < 32:",
    ),
    "gateway-of-the-other-family-is-none": Mutant(
        "rtnetlink",
        "bool(found.keys() & {*_GATEWAYS, _MULTIPATH})",
        "bool(found.keys() & {_GATEWAY, _MULTIPATH})",
        "kernel.netlink",
    ),
    "one-of-several-gateways-is-none": _locality(
        "with_gateway.update((route.link, *route.gateway_links))", "with_gateway.add(route.link)"
    ),
    "forwarding-of-ipv6-is-not-looked-at": Mutant(
        "interfaces",
        'IPFamily.IPV4: "ipv4/ip_forward", IPFamily.IPV6: "ipv6/conf/all/forwarding"}',
        'IPFamily.IPV4: "ipv4/ip_forward", IPFamily.IPV6: "ipv4/ip_forward"}',
        "kernel",
    ),
    "lack-of-ipv6-is-looked-for-once": Mutant(
        "steering",
        "        self._without_ipv6 = without_ipv6(self._applied or ())\n",
        "        self._without_ipv6 = self._without_ipv6 or without_ipv6(self._applied or ())\n",
        "steering.nftables",
    ),
}
