"""The ways by which a client's bytes reach a pod: what is compared.

    direct       client ──────────────────────────────────▶ pod a
    dnat         client ─▶ Service address ─▶ iptables DNAT ─▶ pods
    peers        client ─▶ Service address ─▶ iptables REDIRECT ─▶ HAProxy, goproxy ─▶ pods
    ours         client ─▶ Service address ─▶ our own steering ─▶ the real agent ─▶ pods
    ours-kernel  client ─▶ Service address ─▶ the agent's translation ─▶ pods
    kube-proxy   client ─▶ Service address ─▶ kube-proxy's translation ─▶ pods

Rule 1: we run as on a node, with every feature on that is on by default, and the access
log off, as it is by default. A stripped build would not count.
Rule 2: a peer's steering is one plain rule for each port: less than ours has.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.cluster import kube_proxy
from tests.cluster.control_plane import ControlPlane
from userspace_proxy.errors import SandboxError
from userspace_proxy.kernel.own_namespace import own_namespace_environment

from .processes import family
from .sites import PORTS, READY_S, SERVICE_IP, Port, Site
from .tools import Tools, find_kubernetes, find_program

FIRST_PROXY_PORT = 17001
STOP_S = 10.0

ALL = frozenset(PORTS)
TCP_ONLY = frozenset(name for name, port in PORTS.items() if port.protocol == "TCP")


class Way:
    """One way, in a site of its own.

    Args:
        site: Where it lives.
        tools: Programs of ours.
        folder: For its files; empty.
    """

    key: str
    label: str
    serves = ALL
    descriptors_each = 0
    """What it needs for one idle connection; 0: it has none."""

    def __init__(self, site: Site, tools: Tools, folder: Path) -> None:
        self.site = site
        self.tools = tools
        self.folder = folder
        self._process: subprocess.Popen[str] | None = None

    def open(self) -> None:
        """Set up what stays, once; ``start`` comes next. Most need rules."""
        for rule in self.rules():
            self.site.node.run(
                [find_program("iptables-legacy"), "-t", "nat", "-A", "PREROUTING", *rule],
                env={**os.environ, "XTABLES_LOCKFILE": str(self.folder / "xtables.lock")},
            )

    def rules(self) -> Iterator[list[str]]:
        """Yield the rules that bring the Service's traffic here."""
        yield from ()

    def command(self) -> list[str]:
        """Return what to run on the node; empty: nothing."""
        return []

    def environment(self) -> dict[str, str]:
        """Return what the command's environment has besides ours."""
        return {}

    def address(self, port: str) -> str:
        """Return what clients dial for a port, as IP:PORT."""
        return f"{SERVICE_IP}:{PORTS[port].front}"

    def start(self) -> None:
        """Start the command, and wait until a client is answered.

        Raises:
            SandboxError: Nobody answered in time; the message has its last words.
        """
        if command := self.command():
            with self._log().open("w") as log:
                self._process = self.site.node.popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env={**os.environ, **self.environment()},
                    start_new_session=True,
                )
        self.wait_until_answered()
        self.site.shorten_conntrack()

    def wait_until_answered(self) -> None:
        """Wait until a client is answered, behind all who are in the queue.

        Raises:
            SandboxError: Nobody answered in time; the message has its last words.
        """
        probe = [self.site.goload, "probe", f"--seconds={READY_S}", "--echo", self.address("echo")]
        if "udp" in self.serves:
            probe += ["--udp", self.address("udp")]
        try:
            self.site.client.run(probe, timeout=READY_S + 5)
        except SandboxError as exc:
            raise SandboxError(f"cannot measure {self.label}: {exc}; {self.last_words()}") from exc

    def stop(self) -> None:
        """End the command. Idempotent."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def restart(self) -> None:
        """Kill the command and start it afresh; without one there is nothing to do.

        Killed, because then our rules stay as a peer's do. A packet that came while there are
        none would leave an entry in the connection tracking table by which later connections
        from the same port miss the rules.
        """
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self.start()

    @property
    def has_died(self) -> bool:
        """Whether the command has ended by itself."""
        return self._process is not None and self._process.poll() is not None

    def last_words(self) -> str:
        """Return the last line that the command wrote."""
        log = self._log()
        lines = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
        return lines[-1] if lines else "the log is empty"

    def pids(self) -> list[int]:
        """Return its processes; empty where the kernel does it all."""
        return family(self._process.pid) if self._process else []

    def _log(self) -> Path:
        return self.folder / "log"


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
            yield [*_matching(port), *every_other, "-j", "DNAT", "--to-destination", first]
            yield [*_matching(port), "-j", "DNAT", "--to-destination", second]


class KubeProxy(Way):
    """kube-proxy in its nftables mode, with an etcd and a kube-apiserver on its node.

    These end once its rules are in force, so that they take no CPU while others are measured.
    Its rules stay, and kube-proxy tries to reach the API server from time to time.
    """

    key, label = "kube-proxy", "kube-proxy 1.36, nftables"

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


class Peer(Way):
    """Another proxy, behind one REDIRECT rule for each port."""

    def rules(self) -> Iterator[list[str]]:
        """Part of Way."""
        for name, number in self.proxy_ports():
            yield [*_matching(PORTS[name]), "-j", "REDIRECT", "--to-ports", str(number)]

    def proxy_ports(self) -> Iterator[tuple[str, int]]:
        """Yield each port's name and where the proxy listens for it."""
        for number, name in enumerate(PORTS, FIRST_PROXY_PORT):
            if name in self.serves:
                yield name, number


class GoProxy(Peer):
    """Our own Go proxy in the style of kube-proxy's userspace mode."""

    key, label = "go", "Go proxy, userspace style"
    descriptors_each = 6

    def command(self) -> list[str]:
        """Part of Way."""
        flags = [
            f"--{PORTS[name].protocol.lower()}={number}="
            + ",".join(self.site.endpoints(PORTS[name]))
            for name, number in self.proxy_ports()
        ]
        return [str(self.tools.goproxy), *flags]

    def environment(self) -> dict[str, str]:
        """Part of Way."""
        return {"GOMAXPROCS": "1"}


class HAProxy(Peer):
    """Debian's HAProxy with one thread, in TCP mode, else as it comes."""

    key, label = "haproxy", "HAProxy, one thread"
    serves = TCP_ONLY
    descriptors_each = 2

    def command(self) -> list[str]:
        """Part of Way."""
        config = self.folder / "haproxy.cfg"
        config.write_text(self._config())
        return [find_program("haproxy"), "-db", "-f", str(config)]

    def _config(self) -> str:
        lines = [
            "global",
            "  nbthread 1",
            "  maxconn 9000",
            "defaults",
            "  mode tcp",
            "  balance roundrobin",
            "  timeout connect 5s",
            "  timeout client 5m",
            "  timeout server 5m",
        ]
        for name, number in self.proxy_ports():
            lines += [f"listen {name}", f"  bind 0.0.0.0:{number}"]
            for index, endpoint in enumerate(self.site.endpoints(PORTS[name])):
                lines.append(f"  server pod{index} {endpoint}")
        return "\n".join(lines) + "\n"


class Ours(Way):
    """The agent as on a node: Services out of a file, rules or routes of its own."""

    key, label = "ours", "**userspace-proxy**, REDIRECT"
    steering = "iptables"
    workers = 1
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
            f"--workers={self.workers}",
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


class OursAsNode(Ours):
    """The same, with endpoints that see the node's address: what the client's own one costs."""

    key, label = "ours-node", "**userspace-proxy**, REDIRECT, the node's address"
    preserve = "never"


class OursTwoWorkers(Ours):
    """The same with two worker processes."""

    key, label = "ours-2w", "**userspace-proxy**, REDIRECT, 2 workers"
    workers = 2


WAYS: dict[str, type[Way]] = {
    way.key: way
    for way in (
        *(Direct, KernelDnat, KubeProxy, OursKernelPath),
        *(Ours, OursLocal, OursAsNode, OursTwoWorkers),
        *(HAProxy, GoProxy),
    )
}


def _matching(port: Port) -> list[str]:
    return ["-d", SERVICE_IP, "-p", port.protocol.lower(), "--dport", str(port.front)]
