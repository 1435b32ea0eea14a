"""From kubectl apply to bytes at a pod: real API server, agent, rules and pods."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from userspace_proxy_testing.sandbox import Host, Pod, Sandbox

from .build import Binaries
from .control_plane import ControlPlane
from .credentials import NODE_PROXIER
from .waiting import wait_for

pytestmark = [pytest.mark.cluster, pytest.mark.netns]

ASK = [sys.executable, "-m", "userspace_proxy_testing.sandbox.client"]

IP = "10.96.1.1"
WEB = f"""
apiVersion: v1
kind: Service
metadata: {{name: web}}
spec:
  clusterIP: {IP}
  ports:
  - {{name: web, port: 80, protocol: TCP}}
  - {{name: dns, port: 53, protocol: UDP}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: web-1, labels: {{kubernetes.io/service-name: web}}}}
addressType: IPv4
ports:
- {{name: web, port: 8080, protocol: TCP}}
- {{name: dns, port: 5353, protocol: UDP}}
endpoints: """


class Cluster:
    """A node with an API server, an agent and pods."""

    def __init__(self, sandbox: Sandbox, control_plane: ControlPlane, folder: Path) -> None:
        self.sandbox = sandbox
        self.control_plane = control_plane
        self.log = folder / "agent.log"
        self.pods = [sandbox.add_pod(f"pod-{letter}") for letter in "abc"]
        for pod in self.pods:
            pod.serve(tcp=8080, udp=5353)
        self.client = sandbox.add_pod("client")
        self.unnumbered = sandbox.add_pod("unnumbered", mode="unnumbered")
        self.laptop = sandbox.add_outside("laptop")
        self.agent: subprocess.Popen[str] | None = None

    @property
    def clients(self) -> list[Host]:
        """The clients: in a pod, behind an unnumbered interface, on the node, and outside."""
        return [self.client, self.unnumbered, self.sandbox.node, self.laptop]

    def start_agent(self) -> None:
        """Start the agent as an unprivileged user, and wait until it is healthy."""
        kubeconfig = self.control_plane.kubeconfig_for(NODE_PROXIER)
        with self.log.open("a") as log:
            self.agent = self.sandbox.node.popen(
                [
                    sys.executable,
                    "-m",
                    "userspace_proxy",
                    f"--kubeconfig={kubeconfig}",
                    "--steering=iptables",
                    "--hostname-override=node-1",
                    "--state-dir=",
                ],
                stderr=log,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )
        wait_for("the agent", self._is_healthy, deadline_s=120.0, hint=self.log.read_text)

    def stop_agent(self, number: signal.Signals) -> int:
        assert self.agent is not None
        self.agent.send_signal(number)
        return self.agent.wait(20)

    def apply(self, *pods: Pod) -> None:
        ips = ", ".join(f"{{addresses: [{pod.ip}]}}" for pod in pods)
        self.control_plane.kubectl("apply", "-f", "-", input=f"{WEB}[{ips}]")

    def rules(self) -> str:
        """The node's rules and chains, without counters and empty built-in chains."""
        text = self.sandbox.node.run(["iptables-legacy-save"]).stdout
        return "\n".join(
            line.split(" [")[0]
            for line in text.splitlines()
            if line.startswith(("-A", ":")) and " ACCEPT [" not in line
        )

    def _is_healthy(self) -> bool:
        url = "http://127.0.0.1:10256/healthz"
        return self.sandbox.node.run([*ASK, "http", url], check=False).returncode == 0


def ask(client: Host, *words: str) -> list[str]:
    """Return the answers to the dial tool's requests; empty if there is none."""
    return client.run([*ASK, *words], check=False).stdout.splitlines()


def served_by(client: Host, names: set[str]) -> None:
    """Wait until exactly these pods answer a client, over TCP and UDP."""
    count = str(2 * len(names))

    def web() -> bool:
        return set(ask(client, "http", f"http://{IP}/", "--count", count)) == names

    def dns() -> bool:
        answers = ask(client, "udp", f"{IP}:53", "hello")
        return bool(answers) and answers[0].removesuffix(": hello") in names

    wait_for(f"{names} by TCP for {client.name}", web)
    wait_for(f"{names} by UDP for {client.name}", dns)


@pytest.fixture(scope="module")
def cluster(
    cluster_binaries: Binaries, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    with contextlib.ExitStack() as stack:
        sandbox = stack.enter_context(Sandbox())
        control_plane = stack.enter_context(
            ControlPlane(
                cluster_binaries,
                prefix=sandbox.node.prefix,
                bind_address=str(sandbox.node.ip),
            )
        )
        control_plane.grant_node_proxier()
        cluster = Cluster(sandbox, control_plane, tmp_path_factory.mktemp("agent"))
        before = cluster.rules()
        cluster.start_agent()
        yield cluster
        assert cluster.stop_agent(signal.SIGTERM) == 0, cluster.log.read_text()
        assert cluster.rules() == before


def test_a_service_applied_with_kubectl_serves_tcp_and_udp_to_all_clients(
    cluster: Cluster,
) -> None:
    cluster.apply(*cluster.pods)
    for client in cluster.clients:
        served_by(client, {"pod-a", "pod-b", "pod-c"})
    cluster.apply(cluster.pods[1])
    served_by(cluster.client, {"pod-b"})
    cluster.control_plane.kubectl("delete", "service", "web")
    wait_for("its rules' end", lambda: IP not in cluster.rules())
