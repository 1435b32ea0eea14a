"""The manifests of examples/deploy with the real API server, and the containers on a node."""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.node.load import Load
from tests.node.processes import child_pids
from tests.tools.clones import ROOT
from userspace_proxy.plane.privileges import WORKER_ID
from userspace_proxy_testing.sandbox import Sandbox

from .build import Binaries
from .chart import DEPLOY, kubeadm_phase, objects_of
from .container import Volumes, start_container
from .control_plane import ControlPlane
from .image import Image
from .rights import OF_EVERYBODY, rights_of
from .waiting import wait_for

pytestmark = [pytest.mark.cluster]

INSTALL = DEPLOY / "install.yaml"
KUBEADM = ROOT / "tests/unit/config"
ACCOUNT = "system:serviceaccount:kube-system:userspace-proxy"
GROUPS = ["system:serviceaccounts", "system:serviceaccounts:kube-system", "system:authenticated"]
ASK = [sys.executable, "-m", "userspace_proxy_testing.sandbox.client"]
ALLOWED = {
    "get services", "list services", "watch services",
    "get nodes", "list nodes", "watch nodes",
    "get endpointslices.discovery.k8s.io", "list endpointslices.discovery.k8s.io",
    "watch endpointslices.discovery.k8s.io",
    "create events.events.k8s.io", "patch events.events.k8s.io",
    *OF_EVERYBODY,
}  # fmt: skip
PEOPLE = ["on-call", "system:authenticated"]
EVERYWHERE = {
    "list services", "watch services", "list nodes",
    "list endpointslices.discovery.k8s.io", "watch endpointslices.discovery.k8s.io",
    *OF_EVERYBODY,
}  # fmt: skip
OF_THE_RELEASE = {
    "list pods", "watch pods", "list daemonsets.apps",
    "get pods/portforward", "create pods/portforward",
}  # fmt: skip
WEB = """
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  clusterIP: 10.96.1.1
  ports: [{name: web, port: 80, protocol: TCP}, {name: dns, port: 53, protocol: UDP}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{name: web, port: 8080, protocol: TCP}, {name: dns, port: 5353, protocol: UDP}]
endpoints: [{addresses: [POD]}]
"""


def installed() -> dict[tuple[str, str], Any]:
    """Return the objects of the plain manifest."""
    return objects_of(INSTALL.read_text())


def test_the_documented_install_replaces_all_examples() -> None:
    page = (ROOT / "docs/install.md").read_text()
    command = re.search(r"^\$ (sed (?:.|\n)*?) \| kubectl apply -f -$", page, re.MULTILINE)
    assert command is not None
    applied = subprocess.run(["sh", "-ec", command[1]], cwd=ROOT, check=True, capture_output=True)
    left = r"api\.cluster\.example|image: userspace-proxy:|10\.244\.0\.0/16"
    assert re.search(left, INSTALL.read_text())
    assert not re.search(left, applied.stdout.decode())


def test_the_account_has_exactly_the_permissions_of_the_golden_list(
    control_plane: ControlPlane,
) -> None:
    rbac = {
        kind: one
        for (kind, _), one in installed().items()
        if kind in ("ServiceAccount", "ClusterRole", "ClusterRoleBinding")
    }
    assert len(rbac) == 3
    control_plane.kubectl("apply", "-f", "-", input=yaml.safe_dump_all(rbac.values()))
    assert rights_of(control_plane, ACCOUNT, GROUPS, namespace="kube-system") == ALLOWED


def test_a_user_bound_as_documented_can_only_read_node_status(
    control_plane: ControlPlane,
) -> None:
    control_plane.kubectl("apply", "-f", str(DEPLOY / "view.yaml"))
    page = (ROOT / "docs/security.md").read_text()
    bind = re.findall(r"kubectl ((?:-n \S+ )?create (?:cluster)?rolebinding .*)", page)
    assert len(bind) == 2
    for command in bind:
        control_plane.kubectl(*command.replace("GROUP", PEOPLE[0]).split())

    def rights(namespace: str) -> set[str]:
        return rights_of(control_plane, "alice", PEOPLE, namespace=namespace)

    assert rights("kube-system") == EVERYWHERE | OF_THE_RELEASE
    assert rights("shop") == EVERYWHERE


def pod_of(objects: Mapping[tuple[str, str], Any], name: str) -> Any:
    return objects["DaemonSet", name]["spec"]["template"]["spec"]


class Node:
    """A node with an API server and a serving pod, whose agent runs from the image."""

    def __init__(self, sandbox: Sandbox, control_plane: ControlPlane, image: Image) -> None:
        self.sandbox = sandbox
        self.control_plane = control_plane
        self.image = image
        self.pod = sandbox.add_pod("pod-a")
        self.pod.serve(tcp=8080, udp=5353)
        self.client = sandbox.add_pod("client")
        control_plane.kubectl("apply", "-f", "-", input=WEB.replace("POD", str(self.pod.ip)))

    @property
    def server(self) -> tuple[str, int]:
        host, _, port = self.control_plane.server.removeprefix("https://").rpartition(":")
        return host, int(port)

    @contextlib.contextmanager
    def agent(
        self, pod: Any, account: str, config_maps: dict[str, dict[str, str]], folder: Path
    ) -> Iterator[subprocess.Popen[str]]:
        """Run a pod's container as an account; it is healthy in the block, and SIGTERM ends it."""
        before = self.rules()
        agent, log = self.start(pod, account, config_maps, folder)
        try:
            yield agent
        finally:
            agent.send_signal(signal.SIGTERM)
            status = agent.wait(30)
        assert status == 0, log.read_text()
        assert self.rules() == before
        # A pod's /proc/sys is read-only, which the agent logs once, at INFO.
        allowed = re.sub(r".*nf_conntrack_tcp_timeout_close_wait.*\n", "", log.read_text())
        assert not re.search("permission|not permitted|read-only|forbidden", allowed, re.IGNORECASE)

    def start(
        self, pod: Any, account: str, config_maps: dict[str, dict[str, str]], folder: Path
    ) -> tuple[subprocess.Popen[str], Path]:
        """Start a pod's container; return its process once it is healthy, and its log."""
        token = self.control_plane.kubectl("-n", "kube-system", "create", "token", account).strip()
        ca = self.control_plane.ca_file.read_text()
        volumes = Volumes(config_maps, token, ca, "node-1", *self.server)
        log = folder / "agent.log"
        container = folder / "container"
        container.mkdir(parents=True)
        with log.open("w") as stderr:
            agent = start_container(
                pod, self.image, volumes, where=self.sandbox.node, folder=container, log=stderr
            )
        url = "http://127.0.0.1:10256/healthz"

        def is_healthy() -> bool:
            assert agent.poll() is None, log.read_text()
            return self.sandbox.node.run([*ASK, "http", url], check=False).returncode == 0

        wait_for("the agent", is_healthy, deadline_s=120.0, hint=log.read_text)
        return agent, log

    def rules(self) -> str:
        """Return the node's legacy iptables rules, and the names of its nftables tables."""
        run = self.sandbox.node.run
        legacy = re.sub(r"(?m)^#.*\n| \[\d+:\d+\]", "", run(["iptables-legacy-save"]).stdout)
        chains = [line for line in legacy.splitlines() if line.startswith("-A")]
        return "\n".join([*chains, run(["nft", "list", "tables"]).stdout])

    def answers(self) -> bool:
        """Return whether the Service answers a pod over TCP and UDP."""
        by_tcp = self.client.run([*ASK, "http", "http://10.96.1.1/"], check=False).stdout
        by_udp = self.client.run([*ASK, "udp", "10.96.1.1:53", "hello"], check=False).stdout
        return by_tcp.strip() == "pod-a" and by_udp.startswith("pod-a")


PORTS = ((80, "TCP"), (53, "UDP"))


@pytest.fixture(scope="module")
def node(cluster_binaries: Binaries, image: Image) -> Iterator[Node]:
    """A node whose API server has the accounts of the manifest and of kubeadm."""
    with (
        Sandbox() as sandbox,
        ControlPlane(
            cluster_binaries, prefix=sandbox.node.prefix, bind_address=str(sandbox.node.ip)
        ) as control_plane,
    ):
        objects = installed().items()
        text = yaml.safe_dump_all(one for (kind, _), one in objects if kind != "DaemonSet")
        control_plane.kubectl("apply", "-f", "-", input=text)
        # As with kubeadm, kube-proxy's account is bound to the role that every cluster has.
        control_plane.kubectl("-n", "kube-system", "create", "serviceaccount", "kube-proxy")
        control_plane.kubectl(
            "create", "clusterrolebinding", "kubeadm:node-proxier",
            "--clusterrole=system:node-proxier", "--serviceaccount=kube-system:kube-proxy",
        )  # fmt: skip
        yield Node(sandbox, control_plane, image)


@pytest.mark.netns
@pytest.mark.parametrize("steering", ["nftables", "iptables"])
def test_the_daemon_sets_container_serves_with_its_granted_capabilities(
    node: Node, tmp_path: Path, steering: str
) -> None:
    objects = installed()
    data = objects["ConfigMap", "userspace-proxy"]["data"]
    data["api-server-host"] = node.server[0]
    data["config.conf"] = data["config.conf"].replace("steering: auto", f"steering: {steering}")
    pod = pod_of(objects, "userspace-proxy")
    with node.agent(pod, "userspace-proxy", {"userspace-proxy": data}, tmp_path) as agent:
        wait_for("the Service", node.answers)
        assert ("uproxy" in node.rules().lower()) or ("userspace" in node.rules())
        users = {status_of(pid, "Uid").split()[0] for pid in child_pids(agent.pid)}
        assert str(WORKER_ID) in users
        assert int(status_of(agent.pid, "CapBnd"), 16) == 0x3 << 12 | 0x7 << 5


@pytest.mark.netns
def test_a_rolling_update_fails_no_request(node: Node, tmp_path: Path) -> None:
    objects = installed()
    assert objects["DaemonSet", "userspace-proxy"]["spec"]["updateStrategy"] == {
        "type": "RollingUpdate",
        "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0},
    }
    data = objects["ConfigMap", "userspace-proxy"]["data"]
    data["api-server-host"] = node.server[0]
    pod, before = pod_of(objects, "userspace-proxy"), node.rules()
    config = "userspace-proxy", {"userspace-proxy": data}
    old, log = node.start(pod, *config, tmp_path / "old")
    wait_for("the Service", node.answers)
    loads = [
        Load(
            node.client,
            tmp_path / f"{port}-{protocol}.log",
            ("10.96.1.1", port),
            30,
            protocol=protocol,
            timeout_s=30,
        )
        for port, protocol in PORTS
    ]
    new, new_log = node.start(pod, *config, tmp_path / "new")
    # The old proxy is its container's first process: an early exit would kill its workers.
    assert old.wait(30) == 0, log.read_text()
    wait_for("the Service", node.answers)
    failed = [load.stop().failed for load in loads]
    assert failed == [{}, {}], new_log.read_text()
    assert "handing over the node" in log.read_text()
    new.send_signal(signal.SIGTERM)
    assert new.wait(30) == 0, new_log.read_text()
    assert node.rules() == before


@pytest.mark.netns
@pytest.mark.usefixtures("helm")
@pytest.mark.parametrize("version", ["1.25", "1.36"])
def test_kubeadms_daemon_set_and_config_map_work_with_the_image(
    node: Node, tmp_path: Path, version: str
) -> None:
    pod = pod_of(objects_of(kubeadm_phase("take-over")), "kube-proxy")
    text = (KUBEADM / f"kubeadm-{version}.yaml").read_text()
    data = yaml.safe_load(text)["data"]
    server = f"https://{':'.join(map(str, node.server))}"
    data["kubeconfig.conf"] = re.sub(r"https://\S+", server, data["kubeconfig.conf"])
    with node.agent(pod, "kube-proxy", {"kube-proxy": data}, tmp_path):
        wait_for("the Service", node.answers)


def status_of(pid: int, name: str) -> str:
    """Return a field of a process's status."""
    found = re.search(rf"(?m)^{name}:\s*(.*)$", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return found[1]
