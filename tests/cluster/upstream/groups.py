"""Which of upstream's seven thousand tests are run, in what cluster.

Left out of every group: what needs ssh to nodes, a cloud's load balancer, SCTP, or a feature that
is off by default; and what takes an hour for itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

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


PASSED, FAILED, SKIPPED = "passed", "failed", "skipped"
_IT = re.compile(r"^\[It\] (\[sig-network\] .*)$")
# A test that was not chosen says no more than this; one that chose not to run gives its reason.
_NOT_CHOSEN = "skipped"


@dataclass(frozen=True, slots=True)
class Result:
    """How one test ended."""

    name: str
    """As upstream names it, with its labels."""
    outcome: str
    """``passed``, ``failed`` or ``skipped``."""
    seconds: float
    reason: str
    """Why it failed or was skipped, one line; empty when it passed."""


def read_results(report: Path) -> list[Result]:
    """Return how the chosen tests ended, sorted by name."""
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
