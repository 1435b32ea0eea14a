"""Selects groups from upstream's seven thousand tests, and the clusters that they need.

No group has tests that take an hour, or that need ssh to nodes, a cloud's load balancer, SCTP, or a
feature that is disabled by default.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

# The two ways in which most clusters connect a node's pods: a link each (ptp, Calico), or a common
# bridge, on which pods' replies bypass the node's own routes (flannel, k3s).
CNIS = ("ptp", "bridge")
SKIP = ("Disruptive", "Serial", "Slow", "Feature:", "LoadBalancer")


@dataclass(frozen=True, slots=True)
class Group:
    """Tests that are run together."""

    title: str
    """Its title in a report."""
    tests: Sequence[str]
    """Prefixes of test names after ``[sig-network]``, or whole names."""
    nodes: int
    processes: int
    """The number of tests that run in parallel."""
    families: Sequence[str] = ("ipv4",)
    """Keys of `FAMILIES`: the clusters in which the group runs."""
    skip: Sequence[str] = SKIP
    """Substrings of the names of excluded tests."""

    @property
    def focus(self) -> str:
        """The focus expression for ginkgo."""
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
    # Tests that need a real kubelet, its plugins and controllers. The other guarantees of Services
    # are tested in tests/promises, in seconds, with a real API server.
    "ci": Group(
        "A choice for every change",
        [
            # Uses the addresses and routes of a CNI plugin.
            "Services should preserve source pod IP for traffic thru service cluster IP",
            # The kubelet stops a pod and starts another pod, and controllers see both.
            "Conntrack should be able to preserve UDP traffic when server pod cycles for a "
            "NodePort service",
            # Uses CoreDNS through its Service, over TCP and UDP, from several pods.
            "DNS should provide DNS for services",
            # Uses the proxy's rules together with the rules of the portmap plugin.
            "HostPort validates",
        ],
        nodes=3,
        processes=4,
    ),
}


PASSED, FAILED, SKIPPED = "passed", "failed", "skipped"
_IT = re.compile(r"^\[It\] (\[sig-network\] .*)$")
# The reason of tests that weren't selected; tests that skip themselves report other reasons.
_NOT_CHOSEN = "skipped"


@dataclass(frozen=True, slots=True)
class Result:
    """The result of one test."""

    name: str
    """Upstream's name, with labels."""
    outcome: str
    """``passed``, ``failed`` or ``skipped``."""
    seconds: float
    reason: str
    """Why the test failed or was skipped, in one line; empty if it passed."""


def read_results(report: Path) -> list[Result]:
    """Return the results of the selected tests, sorted by name."""
    root = ET.parse(report).getroot()
    found = [result for case in root.iter("testcase") for result in _read(case)]
    return sorted(found, key=lambda result: result.name)


def _read(case: ET.Element) -> Iterator[Result]:
    name = _IT.match(case.get("name", ""))
    skipped = case.find("skipped")
    if name is None or (skipped is not None and skipped.get("message") == _NOT_CHOSEN):
        return
    outcome, reason = PASSED, ""
    for kind in ("failure", "error"):
        if (element := case.find(kind)) is not None:
            outcome, reason = FAILED, element.get("message", "")
    if skipped is not None:
        outcome, reason = SKIPPED, skipped.get("message", "").removeprefix("skipped - ")
    yield Result(name[1], outcome, float(case.get("time", "0")), " ".join(reason.split())[:300])
