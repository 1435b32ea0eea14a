"""A release of the chart in a cluster: its agents are pods on the host network.

    agent ──7443──▶ world: redirected ──6443──▶ API server ◀──6443── kubelet, kubectl
           × cut

Rule 1: agents use a port of the API server that nothing else uses, so an agent can be cut off while
the node's kubelet still forwards ports.
Rule 2: packets are dropped in the world, between nodes, where no agent can see the rule.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from ipaddress import IPv4Address
from pathlib import Path

from tests.node.processes import child_pids

from ..chart import render
from ..objects import made
from ..waiting import wait_for
from . import kubeadm
from .cluster import Cluster
from .families import listed
from .node import ClusterNode

NAME = "userspace-proxy"
NAMESPACE = kubeadm.NAMESPACE
PROGRAM = "/usr/local/bin/userspace-proxy"
AGENTS_PORT, SERVER_PORT = 7443, 6443
TABLE = "faults"
_NO_MORE = "no-more-agents"
_PRIORITY = {
    "scopeName": "PriorityClass",
    "operator": "In",
    "values": ["system-node-critical"],
}
_SCOPES = {"matchExpressions": [_PRIORITY]}
_QUOTA = made("ResourceQuota", _NO_MORE, {"hard": {"pods": "0"}, "scopeSelector": _SCOPES})
"""A quota that admits no pod with the chart's priority."""
_HELD_S = 3600
"""Seconds for which new agents must be ready before a held update continues: longer than a test."""

_RULES = f"""\
table ip {TABLE} {{
    set cut {{ type ipv4_addr; }}
    set lost {{ type ipv4_addr . ipv4_addr; flags interval; }}
    chain agents {{
        type nat hook prerouting priority dstnat;
        tcp dport {AGENTS_PORT} redirect to :{SERVER_PORT}
    }}
    chain cut {{
        type filter hook prerouting priority raw;
        ip saddr @cut tcp dport {AGENTS_PORT} drop
    }}
    chain cut_answers {{
        type filter hook output priority filter;
        ip daddr @cut meta l4proto tcp ct original proto-dst {AGENTS_PORT} drop
    }}
    chain lost {{
        type filter hook forward priority filter;
        ip saddr . ip daddr @lost drop
    }}
}}
"""


def deploy(cluster: Cluster, *values: str) -> None:
    """Deploy the chart on every node; the caller waits for its rollout.

    Args:
        cluster: A cluster without a Service proxy, and with the image.
        values: More options of ``helm template``.
    """
    cluster.world.run("nft", "-f", "-", input=_RULES)
    pods = listed(family.pods for family in cluster.families).replace(",", "\\,")
    text = render(
        f"--set=apiServer.host={cluster.families[0].world}",
        f"--set=apiServer.port={AGENTS_PORT}",
        f"--set=clusterCIDR={pods}",
        *values,
    )
    cluster.control_plane.kubectl("apply", "-f", "-", input=text)


def wait_until_ready(cluster: Cluster) -> None:
    kubeadm.wait_for_rollout(cluster, NAME)


@contextmanager
def cut_off(cluster: Cluster, node: ClusterNode) -> Iterator[None]:
    """Drop packets from a node's agent to the API server silently."""
    with _element(cluster, "cut", str(node.site.ips[0])):
        yield


@contextmanager
def losing(cluster: Cluster, node: ClusterNode, endpoint: IPv4Address) -> Iterator[None]:
    """Drop packets from a node and its pods to an endpoint on another node."""
    sources = (node.site.ips[0], node.site.pods[0])
    with _element(cluster, "lost", ", ".join(f"{source} . {endpoint}" for source in sources)):
        yield


@contextmanager
def stopped(node: ClusterNode) -> Iterator[None]:
    """Suspend a node's control process, as a debugger does; its workers continue."""
    first = find_agent(node, PROGRAM)
    assert first is not None, f"there is no agent on {node.site.name}"
    (pid,) = child_pids(first)
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


@contextmanager
def without_agent(cluster: Cluster, node: ClusterNode) -> Iterator[None]:
    """Delete a node's agent pod, and prevent a new pod until the block ends."""
    in_system = ("-n", NAMESPACE)
    cluster.control_plane.apply(_QUOTA, namespace=NAMESPACE)
    try:
        used = (
            *in_system,
            "get",
            "resourcequota",
            _NO_MORE,
            "--output=jsonpath={.status.used.pods}",
        )
        wait_for(
            "the quota to be in force", lambda: cluster.kubectl(*used) == str(len(cluster.nodes))
        )
        cluster.kubectl(*in_system, "delete", *agents(cluster, node), "--grace-period=1")
        yield
    finally:
        cluster.kubectl(*in_system, "delete", "resourcequota", _NO_MORE)


@contextmanager
def updating(cluster: Cluster) -> Iterator[None]:
    """Update all agents; old agents run beside the new agents until the block ends.

    The caller waits for the update's end.

    Args:
        cluster: A cluster whose DaemonSet may have two pods on a node during an update.
    """
    daemon_set = ("daemonset", NAME)
    in_system = ("-n", NAMESPACE)
    shown = "--output=jsonpath={.spec.minReadySeconds}"
    before = int(cluster.kubectl(*in_system, "get", *daemon_set, shown) or 0)

    def require(seconds: int) -> None:
        patch = json.dumps({"spec": {"minReadySeconds": seconds}})
        cluster.kubectl(*in_system, "patch", *daemon_set, f"--patch={patch}")

    require(_HELD_S)
    try:
        cluster.kubectl(*in_system, "rollout", "restart", *daemon_set)
        yield
    finally:
        require(before)


def agents(cluster: Cluster, node: ClusterNode) -> list[str]:
    """Return the names of a node's agent pods."""
    said = cluster.kubectl(
        *("-n", NAMESPACE, "get", "pods", f"--selector=app.kubernetes.io/name={NAME}"),
        *(f"--field-selector=spec.nodeName={node.site.name}", "--output=name"),
    )
    return said.split()


@contextmanager
def _element(cluster: Cluster, name: str, element: str) -> Iterator[None]:
    words = ("element", "ip", TABLE, name, f"{{ {element} }}")
    cluster.world.run("nft", "add", *words)
    try:
        yield
    finally:
        cluster.world.run("nft", "delete", *words)


def find_agent(node: ClusterNode, program: str) -> int | None:
    """Return the PID of the first process in a node's agent container; None if there is none.

    Args:
        program: The path of the container's entrypoint.
    """
    network = Path(f"/proc/{node.holder.pid}/ns/net").readlink()
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
            is_ours = words[0].endswith(b"python") and program.encode() in words
            is_first = process_status(int(entry.name))["NSpid"].split()[-1] == "1"
            if is_ours and is_first and (entry / "ns/net").readlink() == network:
                return int(entry.name)
        except (FileNotFoundError, ProcessLookupError):
            continue
    return None


def process_status(pid: int) -> dict[str, str]:
    """Return the fields of a process's ``/proc/PID/status`` by name."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, value in (line.split(":", 1) for line in lines)}
