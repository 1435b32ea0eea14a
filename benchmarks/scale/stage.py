"""A node with a client and three backend pods; each agent has one, so that costs are separate.

client ──veth── node: the agent ──veth── pod a   answers at all of 10.250.0.0/16
                      │         ──veth── pod b              at 10.251.0.0/16
                     LAN        ──veth── pod c              at 10.252.0.0/16
                      │
                   control: etcd and kube-apiserver
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from userspace_proxy.errors import SandboxError
from userspace_proxy_testing.sandbox import Pod, Sandbox, SandboxNode
from userspace_proxy_testing.sandbox.holder import read_line

from ..sites import CLIENT_SYSCTLS, READY_S
from .command_process import CommandProcess
from .objects import BACK, BACKENDS, ECHO_BACK, ENDPOINT_RANGES


class Stage:
    """The namespaces of one agent, with backends that answer.

    Args:
        sandbox: The sandbox to which the node is added.
        name: The name of the node, and the prefix of its pods' names.
        goload: The load program.
    """

    def __init__(self, sandbox: Sandbox, name: str, goload: Path) -> None:
        self.node: SandboxNode = sandbox.add_node(name)
        self.client: Pod = self.node.add_pod(f"{name}-client")
        self.goload = str(goload)
        self.client.configure(sysctls=CLIENT_SYSCTLS)
        self.backend_pids: list[int] = []
        for letter in BACKENDS:
            self._add_backend(self.node.add_pod(f"{name}-{letter}"), letter)
        self.prober = CommandProcess(self.client, "benchmarks.scale.prober")

    def _add_backend(self, pod: Pod, letter: str) -> None:
        ends = ENDPOINT_RANGES[letter]
        # A local route assigns all addresses of the range to the pod.
        pod.configure([f"route add local {ends} dev lo"])
        self.node.configure([f"route add {ends} via {pod.ip} dev {pod.host_interface}"])
        pod.serve(letter, tcp=BACK)
        echo = pod.popen(
            [self.goload, "serve", f"--echo={ECHO_BACK}"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
        )
        if echo.stdout is None or read_line(echo.stdout.fileno(), READY_S) != "ready":
            raise SandboxError(f"cannot start the echo in {pod.name}")
        echo.stdout.close()
        self.backend_pids.append(echo.pid)
