"""Defines the compared ways by which a client's bytes reach a pod.

    direct       client ──────────────────────────────────▶ pod a
    dnat         client ─▶ Service address ─▶ iptables DNAT ─▶ pods
    peers        client ─▶ Service address ─▶ iptables REDIRECT ─▶ HAProxy, nginx, … ─▶ pods
    ours         client ─▶ Service address ─▶ own steering ─▶ the real agent ─▶ pods
    ours-kernel  client ─▶ Service address ─▶ the agent's translation ─▶ pods
    ours-sockets client ─▶ the agent's hooks of connect() ─▶ pods
    kube-proxy   client ─▶ Service address ─▶ kube-proxy's translation ─▶ pods

Rule 1: the agent runs as on a node, with its defaults: all default features are enabled, and the
access log is disabled. A stripped build would not count.
Rule 2: a peer's steering is one plain rule per port, which is less than the agent has.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.cluster import kube_proxy
from tests.cluster.control_plane import ControlPlane
from tests.hooked import HookedGroup, flags_for, missing_feature, with_own_names
from userspace_proxy.kernel.own_namespace import own_namespace_environment

from .peers import GoProxy, HAProxy, HAProxyAsClient, HAProxyOfNewerDebian, Nginx
from .sites import PORTS, Site
from .tools import ToolMissing, Tools, find_kubernetes
from .way import TCP_ONLY, Way, matching


class Direct(Way):
    """Connections to a pod's own address, which show the network's own speed."""

    key, label = "direct", "direct to one pod"

    def address(self, port: str) -> str:
        return self.site.endpoints(PORTS[port])[0]


class KernelDnat(Way):
    """Rules as in kube-proxy's iptables mode, which send every other connection to each pod."""

    key, label = "dnat", "kernel DNAT (iptables)"

    def rules(self) -> Iterator[list[str]]:
        every_other = ["-m", "statistic", "--mode", "nth", "--every", "2", "--packet", "0"]
        for port in PORTS.values():
            first, second = self.site.endpoints(port)
            yield [*matching(port), *every_other, "-j", "DNAT", "--to-destination", first]
            yield [*matching(port), "-j", "DNAT", "--to-destination", second]


class KubeProxy(Way):
    """kube-proxy in its nftables mode, with an etcd and a kube-apiserver on its node.

    etcd and kube-apiserver end once the rules are applied, so that they take no CPU time during
    measurements. The rules stay, and kube-proxy tries to reach the API server from time to time.
    """

    key, label = "kube-proxy", "kube-proxy 1.36, nftables"

    @classmethod
    def find_programs(cls) -> None:
        find_kubernetes()

    def start(self) -> None:
        binaries, self._program = find_kubernetes()
        node = self.site.node
        with ControlPlane(binaries, prefix=node.prefix, users=kube_proxy.USERS) as control_plane:
            kube_proxy.put_objects(control_plane, node, self.site.objects())
            self._kubeconfig = control_plane.kubeconfig_for(kube_proxy.USER)
            super().start()

    def command(self) -> list[str]:
        return kube_proxy.kube_proxy_command(self._program, self.site.node, self._kubeconfig)

    def environment(self) -> dict[str, str]:
        return kube_proxy.kube_proxy_environment()


class Ours(Way):
    """The agent as on a node, with Services from a file, and its own rules or routes."""

    key, label = "ours", "**userspace-proxy**, REDIRECT"
    steering = "iptables"
    preserve = "auto"
    path = "userspace"
    descriptors_each = 2

    def open(self) -> None:
        documents = json.dumps(
            {"apiVersion": "v1", "kind": "List", "items": list(self.site.objects())}
        )
        (self.folder / "bench.yaml").write_text(documents)

    def command(self) -> list[str]:
        flags = [
            f"--manifests={self.folder / 'bench.yaml'}",
            f"--steering={self.steering}",
            f"--path={self.path}",
            "--hostname-override=node-1",
            "--state-dir=",
            "--drain-timeout=0s",
            "--workers=1",
            f"--preserve-client-address={self.preserve}",
        ]
        return [sys.executable, "-m", "userspace_proxy", "run", *flags]

    def environment(self) -> dict[str, str]:
        return {
            **own_namespace_environment(self.site.node.pid),
            "XTABLES_LOCKFILE": str(self.folder / "xtables.lock"),
        }


class OursLocal(Ours):
    """The agent with the Service's address bound instead of redirected."""

    key, label = "ours-local", "**userspace-proxy**, local"
    steering = "local"


class OursKernelPath(Ours):
    """The agent with rules that lead directly to the pods."""

    key, label = "ours-kernel", "**userspace-proxy**, kernel path"
    steering = "nftables"
    path = "kernel"
    descriptors_each = 0


class OursSockets(OursKernelPath):
    """The kernel path, with hooks that translate only connect() calls of the client's processes.

    UDP is omitted, because rules translate it, as with ``ours-kernel``.
    """

    key, label = "ours-sockets", "**userspace-proxy**, kernel path, sockets"
    serves = TCP_ONLY
    is_optional = True

    def __init__(self, site: Site, tools: Tools, folder: Path) -> None:
        super().__init__(site, tools, folder)
        self.group = HookedGroup(self.key)

    @classmethod
    def find_programs(cls) -> None:
        if reason := missing_feature():
            raise ToolMissing(reason)

    def command(self) -> list[str]:
        return with_own_names([*super().command(), *flags_for(self.group.folder)])

    def as_client(self, command: Sequence[str]) -> list[str]:
        return [*self.group.prefix, *command]

    def stop(self) -> None:
        super().stop()
        self.group.close()


class OursAsNode(Ours):
    """The agent as in ``ours``, except that endpoints see the node's address."""

    key, label = "ours-node", "**userspace-proxy**, REDIRECT, the node's address"
    preserve = "never"
    preserves_client_address = False


WAYS: dict[str, type[Way]] = {
    way.key: way
    for way in (
        *(Direct, KernelDnat, KubeProxy, OursKernelPath, OursSockets),
        *(Ours, OursLocal, OursAsNode),
        *(HAProxy, HAProxyOfNewerDebian, HAProxyAsClient),
        *(Nginx, GoProxy),
    )
}
