"""A node on which ``userspace-proxy check`` runs, for the tests of the command."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys

import steering_nodes as nodes

from userspace_proxy.cli import main

WEB = """\
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {clusterIP: 10.96.0.10, ports: [{port: 80}]}
"""
SLICE = """\
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, namespace: shop, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
endpoints: [{addresses: [10.244.0.7]}]
ports: [{port: 8080}]
"""


class CheckedNode(nodes.Net):
    """A node with one Service in a manifest."""

    def __init__(self, folder) -> None:
        super().__init__("node")
        self.folder = folder
        self.manifests = folder / "web.yaml"
        self.manifests.write_text(WEB + SLICE)
        self.environment = {**os.environ, "XTABLES_LOCKFILE": str(folder / "xtables.lock")}
        self.run("ip route add default dev lo; sysctl -qw net.ipv4.tcp_tw_reuse=1")

    def run(self, command: str) -> str:
        lock = f"XTABLES_LOCKFILE={self.folder}/xtables.lock" if hasattr(self, "folder") else ""
        return super().run(f"export {lock}; {command}" if lock else command)

    def check(self, *flags: str, manifests: bool = True) -> subprocess.CompletedProcess[str]:
        """Run the command in this namespace; return its exit status, and its output as text."""
        source = [f"--manifests={self.manifests}"] if manifests else []
        command = [sys.executable, "-m", "userspace_proxy", "check", *source, *flags]
        return subprocess.run(
            ["nsenter", f"--net=/proc/self/fd/{self.fd}", *command],
            pass_fds=[self.fd],
            capture_output=True,
            text=True,
            timeout=120,
            env=self.environment,
        )

    def findings(self, *flags: str, manifests: bool = True) -> list[dict[str, str]]:
        """Run the command in a thread in this namespace; return all findings."""
        source = [f"--manifests={self.manifests}"] if manifests else []
        with self, contextlib.redirect_stdout(io.StringIO()) as said:
            status = main(["check", *source, *flags, "-o", "json"])
        answer = json.loads(said.getvalue())
        assert status == (1 if answer["mark"] == "error" else 0)
        found: list[dict[str, str]] = answer["findings"]
        return found

    def about(self, topic: str, *flags: str, manifests: bool = True) -> list[str]:
        """Return the findings about a topic as text: each with its mark, sentence and place."""
        return [
            f"{f['mark']}: {f['what']}" + (f" [{f['where']}]" if f["where"] else "")
            for f in self.findings(*flags, manifests=manifests)
            if f["topic"] == topic
        ]

    def hint(self, topic: str, *flags: str) -> str:
        """Return the remedy in the findings about a topic, which have only one."""
        (hint,) = {f["hint"] for f in self.findings(*flags) if f["topic"] == topic}
        return hint

    def kernel(self) -> str:
        """Return rules, routes, addresses and the names of legacy tables as text."""
        return self.run(
            "nft list ruleset; ip route; ip -6 route; ip rule; ip addr; cat /proc/net/ip*_names"
        )


def checked_node(tmp_path, monkeypatch):
    """Yield a new node; test modules use this as a fixture."""
    monkeypatch.setenv("XTABLES_LOCKFILE", str(tmp_path / "xtables.lock"))
    nodes.need_namespaces()
    node = CheckedNode(tmp_path)
    yield node
    node.close()
