"""Which of upstream's seven thousand tests are run, in what cluster.

Left out of every group: what needs ssh to nodes, a cloud's load balancer, SCTP, or a feature that
is off by default; and what takes an hour for itself.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

# The two ways in which most clusters connect a node's pods: a link for each (ptp, Calico), or one
# bridge for all, on which pods answer each other past the node's own routes (flannel, k3s).
CNIS = ("ptp", "bridge")
SKIP = ("Disruptive", "Serial", "Slow", "Feature:", "LoadBalancer")


@dataclass(frozen=True, slots=True)
class Group:
    """Tests that are run together."""

    title: str
    """What a report calls them."""
    tests: Sequence[str]
    """How their names begin after ``[sig-network]``, or whole names."""
    nodes: int
    processes: int
    """How many tests run at once."""
    families: Sequence[str] = ("ipv4",)
    """Keys of `FAMILIES`: the clusters in which it runs."""
    skip: Sequence[str] = SKIP
    """Parts of the names of tests that are left out."""

    @property
    def focus(self) -> str:
        """The expression for ginkgo."""
        return rf"\[sig-network\] ({'|'.join(map(re.escape, self.tests))})"


GROUPS = {
    "services": Group("Services", ["Services "], nodes=3, processes=4, families=("ipv4", "ipv6")),
    "dual-stack": Group(
        "Dual stack",
        ["[Feature:IPv6DualStack] "],
        nodes=3,
        processes=4,
        families=("dual",),
        skip=("Feature:SCTPConnectivity",),
    ),
    "networking": Group(
        "Networking",
        [
            "Networking Granular Checks",
            "Networking should check kube-proxy urls",
            "Conntrack ",
            "KubeProxy ",
            "DNS ",
            "EndpointSlice ",
            "HostPort ",
            "Traffic Distribution ",
            "Topology Hints ",
            "Connectivity Pod Lifecycle ",
        ],
        nodes=6,
        processes=5,
    ),
    # What takes a real kubelet, its plugins and controllers; the rest of what upstream promises of
    # Services is in tests/promises, which run in seconds against a real API server.
    "ci": Group(
        "A choice for every change",
        [
            # With addresses and routes as a CNI plugin makes them.
            "Services should preserve source pod IP for traffic thru service cluster IP",
            # A pod that kubelet ends and another that it starts, seen by controllers.
            "Conntrack should be able to preserve UDP traffic when server pod cycles for a "
            "NodePort service",
            # CoreDNS through its Service, by both protocols and from several pods.
            "DNS should provide DNS for services",
            # Beside the rules of the portmap plugin.
            "HostPort validates",
        ],
        nodes=3,
        processes=4,
    ),
}
