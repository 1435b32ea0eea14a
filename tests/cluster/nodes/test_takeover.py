"""No client is affected by a takeover from kube-proxy, a change of paths, or the way back.

    web on three nodes ◀── 100 new connections a second, datagrams, kept connections ── pods, hosts
    kube-proxy ──rollout restart──▶ kube-proxy ──take-over──▶ this ──standby, original──▶ kube-proxy
                                                       userspace ◀──▶ kernel

The commands are from docs/first-deployment.md, in its order.
"""
# ruff: noqa: T201 - the figures are for docs/install.md.

from __future__ import annotations

import itertools
import json
import os
import signal
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import yaml

from ..build import Binaries
from ..chart import kubeadm_phase
from ..objects import Object, made, pod
from ..waiting import wait_for
from . import kubeadm
from .clients import NETEXEC, Client, Clients, Toll, now
from .cluster import Cluster
from .images import ensure_images, ensure_own_image
from .node import ClusterNode
from .programs import Programs
from .release import find_agent, process_status

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.netns,
    pytest.mark.timeout(2400),
    pytest.mark.usefixtures("helm"),
]

ADDRESS, PORT = "10.96.7.7", 80
CLIENTS = (
    Client("node-1", on_host=False),
    Client("node-1", on_host=True),
    Client("node-2", on_host=False),
    Client("node-3", on_host=True),
    Client("node-2", on_host=False, kind="UDP", rate=5),
    Client("node-1", on_host=False, kind="kept-TCP", rate=5),
    Client("node-3", on_host=True, kind="kept-TCP", rate=5),
    Client("node-2", on_host=False, kind="kept-UDP", rate=5),
    Client("node-1", on_host=True, kind="kept-UDP", rate=5),
)
UNKEPT = ("TCP", "UDP")
PATH = "userspace-proxy.io/path"
KUBE_PROXY = "/usr/local/bin/kube-proxy"
"""The command that kubeadm's DaemonSet starts, which is also in this proxy's image."""
ROLLOUT_S = 45.0
PAUSE_S = 10.0
"""The pause after each change, during which losses are counted."""
GRANTED = {"CAP_KILL": 5, "CAP_SETGID": 6, "CAP_SETUID": 7, "CAP_NET_ADMIN": 12, "CAP_NET_RAW": 13}
OUTAGE_S = 3.0
SECCOMP_FILTER = "2"


Cost = Mapping[str, Toll]
"""Failures by the kind of client."""


@dataclass(frozen=True, slots=True)
class Stage:
    """A cluster with kubeadm's kube-proxy, and clients that connect continuously."""

    cluster: Cluster
    clients: Clients

    def system(self, *command: str) -> None:
        """Run kubectl in the namespace kube-system."""
        self.cluster.kubectl("-n", kubeadm.NAMESPACE, *command)

    def costs(self, *changes: Callable[[], None]) -> list[Cost]:
        """Make changes in order; return the failures between each change and the next."""
        moments = []
        for change in changes:
            moments.append(now())
            change()
            self._pause()
        kinds = dict.fromkeys(client.kind for client in CLIENTS)
        return [
            {kind: self.clients.toll(since, until, kind=kind) for kind in kinds}
            for since, until in itertools.pairwise([*moments, now()])
        ]

    def _pause(self) -> None:
        until = now() + PAUSE_S
        wait_for("more requests", lambda: now() > until)

    def restart(self) -> None:
        """Restart the DaemonSet kube-proxy, whichever proxy it runs."""
        self.system("rollout", "restart", "daemonset", "kube-proxy")
        self.settle("kube-proxy")

    def take_over(self) -> None:
        """Replace kube-proxy by this proxy."""
        self.apply_changed("take-over")
        self.settle("kube-proxy")
        self.settle("kube-proxy-cleanup")
        self.system("delete", "daemonset", "kube-proxy-cleanup")

    def give_back(self) -> None:
        """Replace this proxy by the original kube-proxy."""
        self.apply_changed("standby")
        self.settle("kube-proxy-standby")
        self.apply_changed("original")
        self.settle("kube-proxy")
        self.system("delete", "daemonset", "kube-proxy-standby")

    def change_path(self, path: str, *, is_ours: bool = True) -> None:
        """Move new connections to another path, but not open connections.

        Args:
            is_ours: Whether this proxy serves the nodes, so that the change is applied immediately.
        """
        services = ("services", "--all", "--all-namespaces")
        self.cluster.kubectl("annotate", *services, "--overwrite", f"{PATH}={path}")
        if not is_ours:
            return
        wait_for(
            f"the path {path} on all nodes",
            lambda: all(port["path"] == path for port in self._ports()),
            hint=lambda: str(self._ports()),
        )

    def wait_for_the_end_of_connections(self) -> None:
        """Wait until this proxy's workers relay no connection."""
        wait_for(
            "connections in userspace to end",
            lambda: not any(port["active"] for port in self._ports() if port["protocol"] == "TCP"),
            hint=lambda: str(self._ports()),
        )

    def _ports(self) -> list[dict[str, Any]]:
        """Return the Service's ports from the status JSON of each node."""
        url = "http://127.0.0.1:10249/api/v1/status?service=default/web"
        said = [
            json.loads(node.holder.run("curl", "-sf", "--noproxy", "*", url))
            for node in self.cluster.nodes
        ]
        return [port for status in said for port in status["ports"]]

    def apply_changed(
        self, phase: str, change: Callable[[dict[str, Any]], None] = lambda _: None
    ) -> None:
        """Apply a phase with a changed first container of the DaemonSet."""
        objects = list(yaml.safe_load_all(kubeadm_phase(phase)))
        change(objects[0]["spec"]["template"]["spec"]["containers"][0])
        self.cluster.control_plane.apply(*objects)

    def settle(self, daemon_set: str, within_s: float = 100.0) -> None:
        """Wait until a DaemonSet's newest pods are ready on every node."""
        rollout = ("-n", kubeadm.NAMESPACE, "rollout", "status", "daemonset", daemon_set)
        wait_for(
            f"the rollout of {daemon_set}",
            lambda: "successfully" in self.cluster.kubectl(*rollout, "--watch=false"),
            deadline_s=within_s,
        )

    def watch(self) -> None:
        """Wait for longer than a rollout takes, in order to detect an unwanted rollout."""
        until = now() + ROLLOUT_S
        wait_for("what a rollout would do", lambda: now() > until)

    def pods_of(self, daemon_set: str) -> set[str]:
        """Return the names of a DaemonSet's ready pods that aren't being deleted."""
        said = json.loads(
            self.cluster.kubectl(
                "-n", kubeadm.NAMESPACE, "get", "pods", "-l", f"k8s-app={daemon_set}", "-o", "json"
            )
        )
        return {
            pod["metadata"]["name"]
            for pod in said["items"]
            if "deletionTimestamp" not in pod["metadata"]
            and all(state["ready"] for state in pod["status"].get("containerStatuses", ()))
        }

    def ready_of(self, daemon_set: str) -> int:
        """Return the number of nodes on which a DaemonSet's pods are available."""
        path = "jsonpath={.status.numberAvailable}"
        said = self.cluster.kubectl(
            "-n", kubeadm.NAMESPACE, "get", "daemonset", daemon_set, "-o", path
        )
        return int(said or 0)

    def change_kubeconfig(self, old: str, new: str) -> None:
        """Change the API server's URL in kube-proxy's configuration; running pods keep theirs."""
        namespace = ("-n", kubeadm.NAMESPACE)
        said = json.loads(
            self.cluster.kubectl(*namespace, "get", "configmap", "kube-proxy", "-o", "json")
        )
        said["data"]["kubeconfig.conf"] = said["data"]["kubeconfig.conf"].replace(old, new)
        self.cluster.control_plane.kubectl("replace", "-f", "-", input=json.dumps(said))


@pytest.fixture(scope="module", params=["iptables", "nftables"])
def stage(
    cluster_binaries: Binaries, node_programs: Programs, request: pytest.FixtureRequest
) -> Iterator[Stage]:
    """Three nodes with kubeadm's kube-proxy, once in each of its modes."""
    images = ensure_images(node_programs)
    with Cluster(cluster_binaries, node_programs, images, None, cni="ptp") as cluster:
        cluster.import_images(ensure_own_image())
        kubeadm.deploy(cluster, request.param)
        pods = [_web(node.site.name) for node in cluster.nodes]
        pods += [client.pod(ADDRESS, PORT) for client in CLIENTS]
        cluster.control_plane.apply(_service(), *pods)
        cluster.kubectl("wait", "--for=condition=Ready", "pod", "--all", "--timeout=60s")
        clients = Clients(cluster, CLIENTS)
        clients.wait_for_the_first()
        # The first connections failed, because the Service had no endpoints yet.
        wait_for("all connections to succeed", lambda: _is_quiet(clients), deadline_s=60)
        yield Stage(cluster, clients)


def lost(cost: Cost, kinds: Collection[str] = ()) -> int:
    return sum(toll.lost for kind, toll in cost.items() if not kinds or kind in kinds)


def report(changes: str, costs: Sequence[Cost]) -> str:
    """Return a line for each change and kind of client."""
    return "".join(
        f"\n{change}, {kind}: {toll}"
        for change, cost in zip(changes.split(", "), costs, strict=True)
        for kind, toll in cost.items()
    )


def test_takeover_upgrade_and_hand_back_lose_no_more_connections_than_a_restart(
    stage: Stage,
) -> None:
    restart, over, upgrade, back = costs = stage.costs(
        stage.restart, stage.take_over, stage.restart, stage.give_back
    )
    figures = report("restarted, taken over, upgraded, given back", costs)
    print(figures)
    assert lost(over) <= lost(restart), figures
    # Kept connections relayed by workers end when the workers exit.
    assert lost(upgrade, UNKEPT) <= lost(restart, UNKEPT), figures
    assert lost(back, UNKEPT) <= lost(restart, UNKEPT), figures


def _wrong_api_server(container: dict[str, Any]) -> None:
    # No API server listens at that URL.
    container["command"].append("--master=https://127.0.0.1:1")


def _wrong_flag(container: dict[str, Any]) -> None:
    container["command"].append("--no-such-flag")


def _dies_again_and_again(container: dict[str, Any]) -> None:
    container["command"] = ["sh", "-c", "sleep 4; exit 1"]


def _starts_slowly(container: dict[str, Any]) -> None:
    container["command"] = ["sh", "-c", f"sleep 30; exec {' '.join(container['command'])}"]


NEVER_SERVE = [_wrong_api_server, _wrong_flag, _dies_again_and_again]


@pytest.mark.parametrize("change", NEVER_SERVE)
def test_a_takeover_by_an_agent_that_never_becomes_ready_leaves_kube_proxy_running(
    stage: Stage, change: Callable[[dict[str, Any]], None]
) -> None:
    before = stage.pods_of("kube-proxy")
    (cost, _) = stage.costs(lambda: stage.apply_changed("take-over", change), stage.watch)
    try:
        assert before <= stage.pods_of("kube-proxy")
        assert not lost(cost), report("taken over", [cost])
    finally:
        stage.system("delete", "daemonset", "kube-proxy-cleanup")
        stage.apply_changed("original")
        stage.settle("kube-proxy")


def test_a_node_is_handed_over_only_after_the_next_proxy_serves(stage: Stage) -> None:
    def take_over_slowly() -> None:
        stage.apply_changed("take-over", _starts_slowly)
        stage.settle("kube-proxy", within_s=400.0)
        stage.system("delete", "daemonset", "kube-proxy-cleanup")

    def upgrade_in_vain() -> None:
        stage.apply_changed("take-over", _wrong_api_server)
        stage.watch()

    def break_kube_proxy() -> None:
        stage.change_kubeconfig("https://", "https://127.0.0.1:1#")
        stage.apply_changed("standby")
        stage.watch()

    (slow,) = stage.costs(take_over_slowly)
    ours = stage.pods_of("kube-proxy")
    (upgrade, path) = stage.costs(upgrade_in_vain, partial(stage.change_path, "kernel"))
    assert ours <= stage.pods_of("kube-proxy")
    stage.system("delete", "daemonset", "kube-proxy-cleanup")
    (back, repaired) = stage.costs(
        partial(stage.apply_changed, "take-over"), partial(stage.settle, "kube-proxy")
    )
    stage.system("delete", "daemonset", "kube-proxy-cleanup", "--ignore-not-found")
    (standby,) = stage.costs(break_kube_proxy)
    ready = stage.ready_of("kube-proxy-standby")
    stage.system("delete", "daemonset", "kube-proxy-standby")
    stage.change_kubeconfig("https://127.0.0.1:1#", "https://")
    costs = [slow, upgrade, path, back, repaired, standby]
    figures = report("slow, upgrade, path, back, repaired, standby", costs)
    print(figures)
    assert ready == 0, "a kube-proxy that can't read is no standby"
    # A datagram may be in flight while the rules change, as in a restart.
    assert not any(lost(cost, ("TCP", "kept-TCP")) for cost in costs), figures
    stage.give_back()
    stage.change_path("userspace", is_ours=False)


def test_switching_paths_and_leaving_the_kernel_path_lose_no_connections(stage: Stage) -> None:
    costs = stage.costs(
        stage.take_over,
        partial(stage.change_path, "kernel"),
        partial(stage.change_path, "userspace"),
        partial(stage.change_path, "kernel"),
        stage.wait_for_the_end_of_connections,
        stage.give_back,
    )
    figures = report("taken over, kernel, userspace, kernel, waited, given back", costs)
    print(figures)
    assert not any(map(lost, costs)), figures


@pytest.fixture(scope="module")
def taken_over(stage: Stage) -> Stage:
    """The same cluster, with this proxy after its takeover."""
    stage.take_over()
    stage.change_path("userspace")
    return stage


def test_the_pods_are_healthy_with_only_the_granted_capabilities(taken_over: Stage) -> None:
    cluster = taken_over.cluster
    said = json.loads(cluster.kubectl("get", "pods", "-A", "-o", "json"))
    # Pods of kube-proxy-cleanup may still be terminating.
    pods = [pod for pod in said["items"] if "deletionTimestamp" not in pod["metadata"]]
    states = [state for pod in pods for state in pod["status"]["containerStatuses"]]
    assert len(states) == 2 * len(cluster.nodes) + len(CLIENTS)
    assert all(state["ready"] and not state["restartCount"] for state in states), states
    for node in cluster.nodes:
        status = process_status(_agent(node))
        assert status["Seccomp"] == SECCOMP_FILTER
        assert int(status["CapEff"], 16) == sum(1 << bit for bit in GRANTED.values())
        assert status["NoNewPrivs"] == "1"
        rules = node.holder.run("iptables-save") + node.holder.run("nft", "list", "tables")
        assert "KUBE-SVC" not in rules
        assert "kube-proxy" not in rules


def test_a_killed_agent_interrupts_its_node_for_less_than_three_seconds(taken_over: Stage) -> None:
    node = taken_over.cluster.nodes[0]
    # Count connections that were open when the agent died, which began earlier.
    agent, began = _agent(node), now() - 1
    os.kill(agent, signal.SIGKILL)
    wait_for(
        "another agent", lambda: find_agent(node, KUBE_PROXY) not in (None, agent), deadline_s=120.0
    )
    kubeadm.wait_for_rollout(taken_over.cluster, "kube-proxy")
    wait_for("the node to be served", lambda: _is_quiet(taken_over.clients), deadline_s=60)
    toll = taken_over.clients.toll(began, now(), node=node.site.name)
    print(f"\nagent killed: {toll}")
    assert toll.lost, "nobody noticed: this was not the agent"
    assert toll.outage_s < OUTAGE_S, toll


def _is_quiet(clients: Clients) -> bool:
    """Return whether no connection fails in the next second."""
    since = now()
    return clients.toll(since, since + 1).lost == 0


def _web(node: str) -> Object:
    return pod(f"web-{node}", NETEXEC, labels={"app": "web"}, nodeName=node)


def _service() -> Object:
    ports = [
        {"name": "http", "port": PORT, "targetPort": 8080},
        {"name": "udp", "port": PORT, "targetPort": 8081, "protocol": "UDP"},
    ]
    spec = {"clusterIP": ADDRESS, "selector": {"app": "web"}, "ports": ports}
    return made("Service", "web", spec)


def _agent(node: ClusterNode) -> int:
    pid = find_agent(node, KUBE_PROXY)
    assert pid is not None, f"there is no agent on {node.site.name}"
    return pid
