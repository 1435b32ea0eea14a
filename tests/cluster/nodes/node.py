"""One node: its namespaces, containerd, kubelet, and the Service proxy under test."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tests.hooked import PROGRAMS, entering

from ..child import Child
from ..objects import made
from .families import Families, IPAddress, IPNetwork, listed
from .groups import CGROUPS, GROUP, MOUNTED, NodeGroup
from .images import PAUSE
from .programs import Programs
from .world import Holder, add_route, make_node

CLUSTER_DOMAIN = "cluster.local"
ZONE = "topology.kubernetes.io/zone"
CONTAINERD_SOCKET = "/run/containerd/containerd.sock"
# Folders below a node's folder; both have an entry for each container ID.
_CONTAINERS = (
    "lib/containerd/io.containerd.grpc.v1.cri/containers",
    "lib/containerd/io.containerd.grpc.v1.cri/sandboxes",
)


@dataclass(frozen=True, slots=True)
class Site:
    """A node's name, zone and addresses."""

    number: int
    """The node's number, from 1."""
    zone: str
    families: Families
    """The cluster's families."""

    @property
    def name(self) -> str:
        return f"node-{self.number}"

    @property
    def ips(self) -> list[IPAddress]:
        """The node's address in each family."""
        return [family.node(self.number) for family in self.families]

    @property
    def pods(self) -> list[IPNetwork]:
        """The node's pod network in each family."""
        return [family.node_pods(self.number) for family in self.families]

    def document(self) -> dict[str, object]:
        """Return the Node object as kubelet would create it, with the pod network."""
        labels = {ZONE: self.zone, "kubernetes.io/hostname": self.name}
        pods = list(map(str, self.pods))
        return made("Node", self.name, {"podCIDR": pods[0], "podCIDRs": pods}, labels=labels)


class ClusterNode:
    """A node from its creation to `close`.

    Args:
        site: Its name and addresses.
        world: The namespaces around it.
        programs: Its programs.
        folder: Its existing folder, to which the node writes logs and all other files.
        cni: The plugin that connects pods: ``bridge`` or ``ptp``.
    """

    def __init__(
        self, site: Site, world: Holder, programs: Programs, folder: Path, cni: str
    ) -> None:
        self.site = site
        self.folder = folder
        self._programs = programs
        self._cni = cni
        self._proxy: Child | None = None
        self._children: list[Child] = []
        group = NodeGroup(folder)
        group.make()
        self.holder = make_node(world, site.name, folder, site.number, site.families, group)
        for pods, ip in zip(site.pods, site.ips, strict=True):
            add_route(world, pods, ip)
        self._write_configurations()

    def start_containerd(self) -> None:
        """Start containerd, which is ready once its socket exists."""
        self._start(self._programs["containerd"], "--config", self.folder / "containerd.toml")

    def has_containerd(self) -> bool:
        return subprocess.run(self._ctr("version"), capture_output=True).returncode == 0

    def import_command(self, archive: Path | str) -> list[str | Path]:
        """Return the command that imports images into containerd."""
        return self._ctr("images", "import", "--local", archive)

    def begin_import(self, archive: Path) -> subprocess.Popen[bytes]:
        """Start to import images; return the process, for which the caller waits."""
        log = (self.folder / "import.log").open("wb")
        with log:
            return subprocess.Popen(
                self.import_command(archive), stdout=log, stderr=subprocess.STDOUT
            )

    def start_kubelet(self, kubeconfig: Path) -> None:
        self._start(
            self._programs["kubelet"],
            f"--config={self.folder / 'kubelet.json'}",
            f"--kubeconfig={kubeconfig}",
            f"--node-ip={listed(self.site.ips)}",
            f"--node-labels={ZONE}={self.site.zone}",
            "--v=1",
        )

    def start_proxy(
        self, command: Sequence[str | Path], environment: Mapping[str, str] | None = None
    ) -> None:
        """Start the Service proxy; no proxy may be running yet."""
        assert self._proxy is None, f"{self.site.name} has a proxy already"
        words = [f"{name}={value}" for name, value in (environment or {}).items()]
        entered = [*self._enter(), "env", *words]
        self._proxy = Child(command, self.folder / "proxy.log", entered)

    @property
    def proxy(self) -> Child | None:
        """The Service proxy; None if none was started."""
        return self._proxy

    def check(self) -> None:
        """Raise AssertionError with the end of a program's log if it has exited but should run."""
        check_alive(self._children, self.site.name)
        check_alive([self._proxy] if self._proxy else [], self.site.name)

    def close(self) -> None:
        """Kill the node's programs and its holder; its containers exit with the world."""
        for child in [*self._children, *([self._proxy] if self._proxy else [])]:
            child.kill()
        self.holder.close()

    def _ctr(self, *arguments: str | Path) -> list[str | Path]:
        """Return a command of ``ctr`` for this node's containerd and the namespace of kubelet."""
        where = ["--address", CONTAINERD_SOCKET, "--namespace", "k8s.io"]
        return [*self.holder.enter(), self._programs["ctr"], *where, *arguments]

    def _start(self, program: Path, *arguments: str | Path) -> None:
        log = self.folder / f"{program.name}.log"
        self._children.append(Child([program, *arguments], log, self._enter()))

    def _enter(self) -> tuple[str, ...]:
        """Return the prefix for a program of the node, in the node's group."""
        return (*self.holder.enter(), *entering(MOUNTED / PROGRAMS))

    def _write_configurations(self) -> None:
        runc = self._programs.runc
        (self.folder / "containerd.toml").write_text(
            _CONTAINERD.format(
                folder=self._programs.folder, cni=self.folder / "cni", pause=PAUSE, runc=runc
            )
        )
        (self.folder / "resolv.conf").write_text(f"nameserver {self._dns}\n")
        (self.folder / "kubelet.json").write_text(json.dumps(self._kubelet()))
        (self.folder / "cni").mkdir()
        (self.folder / "cni/10-pods.conflist").write_text(json.dumps(self._network()))

    @property
    def _dns(self) -> str:
        return str(self.site.families[0].dns)

    def _kubelet(self) -> dict[str, object]:
        return {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
            "authorization": {"mode": "AlwaysAllow"},
            "containerRuntimeEndpoint": f"unix://{CONTAINERD_SOCKET}",
            "clusterDNS": [self._dns],
            "clusterDomain": CLUSTER_DOMAIN,
            "resolvConf": str(self.folder / "resolv.conf"),
            # The driver works with both cgroup versions, and needs no separate cgroup tree.
            "cgroupDriver": "cgroupfs",
            "cgroupsPerQOS": False,
            "enforceNodeAllocatable": [],
            "failCgroupV1": False,
            "failSwapOn": False,
            # The machine's disk is shared, so pods mustn't be evicted when other programs fill it.
            "evictionHard": {"memory.available": "1Mi", "nodefs.available": "0%"},
            "imageGCHighThresholdPercent": 100,
            "volumePluginDir": "/var/lib/kubelet/volume-plugins",
            "serializeImagePulls": False,
            "kubeAPIQPS": 100,
            "kubeAPIBurst": 100,
        }

    def _network(self) -> dict[str, object]:
        addresses = {
            "type": "host-local",
            "ranges": [[{"subnet": str(pods)}] for pods in self.site.pods],
            "routes": [{"dst": str(family.everything)} for family in self.site.families],
        }
        connect: dict[str, object] = {"type": self._cni, "ipMasq": False, "ipam": addresses}
        if self._cni == "bridge":
            connect |= {"bridge": "cni0", "isGateway": True, "hairpinMode": True}
        ports = {"type": "portmap", "capabilities": {"portMappings": True}}
        return {"cniVersion": "1.0.0", "name": "pods", "plugins": [connect, ports]}


_CONTAINERD = """\
version = 3
disabled_plugins = ["io.containerd.nri.v1.nri", "io.containerd.internal.v1.opt"]

[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = "{pause}"

[plugins."io.containerd.cri.v1.runtime"]
# A container may get no better score than ours: that would need CAP_SYS_RESOURCE.
restrict_oom_score_adj = true

[plugins."io.containerd.cri.v1.runtime".cni]
bin_dirs = ["{folder}"]
conf_dir = "{cni}"

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
BinaryName = "{runc}"
SystemdCgroup = false
"""


def remove_cgroups(folder: Path) -> bool:
    """Remove the control groups of a node's pods; return False while a group is still in use."""
    ids = [entry.name for place in _CONTAINERS for entry in (folder / place).glob("*")]
    own = NodeGroup(folder)
    parents = [own.folder / GROUP, *(tree / GROUP for tree in CGROUPS.iterdir())]
    for group in (parent / id_ for parent in parents for id_ in ids):
        try:
            group.rmdir()
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError:
            return False
    for parent in filter(Path.is_dir, parents):
        # The parent also contains other nodes' containers.
        with suppress(OSError):
            parent.rmdir()
    try:
        own.remove()
    except OSError:
        return False
    return True


def check_alive(children: Sequence[Child], where: str) -> None:
    """Raise AssertionError if a process has exited; the error contains the end of its log."""
    for child in children:
        if child.status is not None:
            what = f"{child.log.stem} on {where} ended with status {child.status}"
            raise AssertionError(f"{what}: {child.log_tail()}")
