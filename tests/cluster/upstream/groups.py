"""Which of upstream's seven thousand tests are run, in what cluster.

Left out of every group: what needs ssh to nodes, a cloud's load balancer, another family, SCTP, or
a feature that is off by default; and what takes an hour for itself.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

# Pods on one bridge answer each other past the node, so an endpoint can't see the address of a
# client on its own node there, as one test asks; with ptp all that a pod sends passes the node.
CNI = "ptp"
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

    @property
    def focus(self) -> str:
        """The expression for ginkgo."""
        return rf"\[sig-network\] ({'|'.join(map(re.escape, self.tests))})"


GROUPS = {
    "services": Group("Services", ["Services "], nodes=3, processes=4),
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
    "ci": Group(
        "A choice for every change",
        [
            "Services should serve multiport endpoints from pods",
            "Services should serve endpoints on same port and different protocols",
            "Services should be able to create a functioning NodePort service",
            "Services should have session affinity work for service with type clusterIP",
            "Services should be rejected when no endpoints exist",
            "Services should allow pods to hairpin back to themselves through services",
            "Services should preserve source pod IP for traffic thru service cluster IP",
            "Services should fallback to local terminating endpoints when there are no ready "
            "endpoints with externalTrafficPolicy=Local",
            "Services should implement service.kubernetes.io/service-proxy-name",
            "Conntrack should be able to preserve UDP traffic when server pod cycles for a "
            "NodePort service",
            "DNS should provide DNS for services",
            "HostPort validates",
        ],
        nodes=3,
        processes=4,
    ),
}
