"""The ways by which a client's bytes reach a pod: what is compared.

    direct       client ──────────────────────────────────▶ pod a
    dnat         client ─▶ Service address ─▶ iptables DNAT ─▶ pods
    peers        client ─▶ Service address ─▶ iptables REDIRECT ─▶ HAProxy, nginx, … ─▶ pods
    ours         client ─▶ Service address ─▶ our own steering ─▶ the real agent ─▶ pods
    ours-kernel  client ─▶ Service address ─▶ the agent's translation ─▶ pods
    ours-sockets client ─▶ the agent's hooks of connect() ─▶ pods
    kube-proxy   client ─▶ Service address ─▶ kube-proxy's translation ─▶ pods

Rule 1: we run as on a node, with every feature on that is on by default, and the access
log off, as it is by default. A stripped build would not count.
Rule 2: a peer's steering is one plain rule for each port: less than ours has.
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
    """Without a Service: the network's own speed."""

    key, label = "direct", "direct to one pod"

    def address(self, port: str) -> str:
        """Part of Way."""
        return self.site.endpoints(PORTS[port])[0]


class KernelDnat(Way):
    """What kube-proxy's iptables mode does: every other connection to each pod."""

    key, label = "dnat", "kernel DNAT (iptables)"

    def rules(self) -> Iterator[list[str]]:
        """Part of Way."""
        every_other = ["-m", "statistic", "--mode", "nth", "--every", "2", "--packet", "0"]
        for port in PORTS.values():
            first, second = self.site.endpoints(port)
            yield [*matching(port), *every_other, "-j", "DNAT", "--to-destination", first]
            yield [*matching(port), "-j", "DNAT", "--to-destination", second]


class KubeProxy(Way):
    """kube-proxy in its nftables mode, with an etcd and a kube-apiserver on its node.

    These end once its rules are in force, so that they take no CPU while others are measured.
    Its rules stay, and kube-proxy tries to reach the API server from time to time.
    """

    key, label = "kube-proxy", "kube-proxy 1.36, nftables"

    @classmethod
    def find_programs(cls) -> None:
        """Part of Way."""
        find_kubernetes()

    def start(self) -> None:
        """Part of Way."""
        binaries, self._program = find_kubernetes()
        node = self.site.node
        with ControlPlane(binaries, prefix=node.prefix, users=kube_proxy.USERS) as control_plane:
            kube_proxy.put_objects(control_plane, node, self.site.objects())
            self._kubeconfig = control_plane.kubeconfig_for(kube_proxy.USER)
            super().start()

    def command(self) -> list[str]:
        """Part of Way."""
        return kube_proxy.kube_proxy_command(self._program, self.site.node, self._kubeconfig)

    def environment(self) -> dict[str, str]:
        """Part of Way."""
        return kube_proxy.kube_proxy_environment()


class Ours(Way):
    """The agent as on a node: Services out of a file, rules or routes of its own."""

    key, label = "ours", "**userspace-proxy**, REDIRECT"
    steering = "iptables"
    preserve = "auto"
    path = "userspace"
    descriptors_each = 2

    def open(self) -> None:
        """Part of Way."""
        documents = json.dumps(
            {"apiVersion": "v1", "kind": "List", "items": list(self.site.objects())}
        )
        (self.folder / "bench.yaml").write_text(documents)

    def command(self) -> list[str]:
        """Part of Way."""
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
        """Part of Way."""
        return {
            **own_namespace_environment(self.site.node.pid),
            "XTABLES_LOCKFILE": str(self.folder / "xtables.lock"),
        }


class OursLocal(Ours):
    """The same, with the Service's address bound instead of redirected."""

    key, label = "ours-local", "**userspace-proxy**, local"
    steering = "local"


class OursKernelPath(Ours):
    """The agent's rules lead straight to the pods."""

    key, label = "ours-kernel", "**userspace-proxy**, kernel path"
    steering = "nftables"
    path = "kernel"
    descriptors_each = 0


class OursSockets(OursKernelPath):
    """The same rules, beneath hooks that translate connect() of the client's processes alone.

    UDP is left out: it takes the rules, as in the row before.
    """

    key, label = "ours-sockets", "**userspace-proxy**, kernel path, sockets"
    serves = TCP_ONLY
    is_optional = True

    def __init__(self, site: Site, tools: Tools, folder: Path) -> None:
        super().__init__(site, tools, folder)
        self.group = HookedGroup(self.key)

    @classmethod
    def find_programs(cls) -> None:
        """Part of Way."""
        if reason := missing_feature():
            raise ToolMissing(reason)

    def command(self) -> list[str]:
        """Part of Way."""
        return with_own_names([*super().command(), *flags_for(self.group.folder)])

    def as_client(self, command: Sequence[str]) -> list[str]:
        """Part of Way."""
        return [*self.group.prefix, *command]

    def stop(self) -> None:
        """Part of Way."""
        super().stop()
        self.group.close()


class OursAsNode(Ours):
    """The same, with endpoints that see the node's address: what the client's own one costs."""

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
