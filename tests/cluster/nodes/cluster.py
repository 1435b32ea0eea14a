"""A cluster, from `start` to `stop`.

    world ── control plane ── containerd, images ── kubelets ── proxies ── every node is ready

Rule 1: long steps are started on all nodes before waiting for the first.
Rule 2: nothing is left: processes, mounts and networks end with the world. After that, the control
groups and the folder are removed.
"""

from __future__ import annotations

import functools
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from ..build import Binaries
from ..child import Child
from ..control_plane import ControlPlane
from ..waiting import wait_for
from . import dns
from .families import FAMILIES, Families, listed
from .node import ClusterNode, Site, check_alive, remove_cgroups
from .programs import Programs
from .proxies import KUBE_PROXY_USER, Proxy, Start
from .world import Holder, make_world

READY_DEADLINE_S = 180.0
"""Seconds; three nodes take ten on two idle cores."""
STOP_DEADLINE_S = 60.0
MAX_NODES = 200


def _kubelet_user(site: Site) -> str:
    return f"system:node:{site.name}"


def remove_leftovers(folder: Path) -> None:
    """Remove the leftovers of a cluster whose processes are gone: its control groups and folder."""
    for node in folder.glob("node-*"):
        what = f"the control groups of {node.name} to be empty"
        wait_for(what, functools.partial(remove_cgroups, node), deadline_s=STOP_DEADLINE_S)
    shutil.rmtree(folder)


class Cluster:
    """Nodes, their control plane and their Service proxy; also a context manager.

    Args:
        images: The archive with all images.
        proxy: The Service proxy; None if the cluster has none.
        nodes: The number of nodes, up to `MAX_NODES`.
        zones: The number of zones over which nodes are distributed.
        cni: The plugin that connects pods: ``bridge`` or ``ptp``.
        families: The families of nodes, pods and Services, the primary family first.
    """

    def __init__(
        self,
        binaries: Binaries,
        programs: Programs,
        images: Path,
        proxy: Proxy | None,
        *,
        nodes: int = 3,
        zones: int = 3,
        cni: str = "bridge",
        families: Families = FAMILIES["ipv4"],
    ) -> None:
        assert 0 < nodes <= MAX_NODES, f"cannot make {nodes} nodes: 1 to {MAX_NODES} are possible"
        self.programs = programs
        self.proxy = proxy
        self.families = families
        self._binaries = binaries
        self._images = images
        self._sites = [
            Site(number, f"zone-{(number - 1) % zones + 1}", families)
            for number in range(1, nodes + 1)
        ]
        self._cni = cni
        self._folder: Path | None = None
        self._world: Holder | None = None
        self._control_plane: ControlPlane | None = None
        self._children: list[Child] = []
        self.nodes: list[ClusterNode] = []

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self.stop()

    @property
    def folder(self) -> Path:
        """The temporary folder, with a folder per node and all logs; `stop` removes it."""
        assert self._folder is not None, "the cluster was not started"
        return self._folder

    @property
    def world(self) -> Holder:
        """The outer namespaces, from which nodes, pods and the API server can be reached."""
        assert self._world is not None, "the cluster was not started"
        return self._world

    @property
    def control_plane(self) -> ControlPlane:
        """The API server, used as its admin; kubectl runs in the world."""
        assert self._control_plane is not None, "the cluster was not started"
        return self._control_plane

    def start(self) -> None:
        """Start everything; return when every node is ready and every proxy is healthy.

        Raises:
            AssertionError: A program didn't start; everything has been stopped.
        """
        self._folder = Path(tempfile.mkdtemp(prefix="userspace-proxy-cluster-"))
        try:
            self._world = make_world(self._folder, self.families)
            self._make_nodes()
            self._start_control_plane()
            imports = self._begin_imports()
            self._start_controllers()
            self._start_kubelets()
            if self.proxy is not None:
                self.start_proxies(self.proxy)
            self._finish_imports(imports)
            self._wait_until_ready()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop everything and remove its leftovers; idempotent."""
        for child in self._children:
            child.kill()
        for node in self.nodes:
            node.close()
        if self._control_plane is not None:
            self._control_plane.stop()
        if self._world is not None:
            self._world.close()
        if self._folder is not None:
            remove_leftovers(self._folder)
        self._children, self.nodes = [], []
        self._control_plane = self._world = self._folder = None

    def import_images(self, archive: Path) -> None:
        self._finish_imports([node.begin_import(archive) for node in self.nodes])

    def start_proxies(self, proxy: Proxy) -> None:
        """Start a Service proxy on every node, and wait until all proxies are healthy."""
        kubeconfig = self.control_plane.kubeconfig_for(proxy.user)
        for node in self.nodes:
            start = Start(node.site, self.programs, kubeconfig)
            node.start_proxy(proxy.command(start), proxy.environment)
        for node in self.nodes:
            self._wait_until_healthy(node)
        self.proxy = proxy

    def kubectl(self, *args: str) -> str:
        return self.control_plane.kubectl(*args)

    def _make_nodes(self) -> None:
        for site in self._sites:
            folder = self.folder / site.name
            folder.mkdir()
            node = ClusterNode(site, self.world, self.programs, folder, self._cni)
            node.start_containerd()
            self.nodes.append(node)

    def _start_control_plane(self) -> None:
        users = {_kubelet_user(site): "system:nodes" for site in self._sites}
        self._control_plane = ControlPlane(
            self._binaries,
            prefix=self.world.enter_network(),
            bind_address=str(self.families[0].world),
            service_cidr=listed(family.services for family in self.families),
            apiserver_flags=[
                "--authorization-mode=Node",
                "--allow-privileged",
                # Node names can't be resolved in the world.
                "--kubelet-preferred-address-types=InternalIP",
            ],
            users=users | {KUBE_PROXY_USER: ""},
            has_controllers=True,
        )
        self._control_plane.start()
        self._control_plane.grant_node_proxier()
        self._control_plane.apply(*(site.document() for site in self._sites))
        self._control_plane.apply(*dns.objects(self.families))

    def _start_controllers(self) -> None:
        control_plane = self.control_plane
        admin = f"--kubeconfig={control_plane.kubeconfig}"
        corefile = self.folder / "Corefile"
        corefile.write_text(dns.corefile(control_plane.kubeconfig, self.families))
        self._start(
            "kube-controller-manager",
            admin,
            "--leader-elect=false",
            f"--service-account-private-key-file={control_plane.service_account_key}",
            f"--root-ca-file={control_plane.ca_file}",
            "--kube-api-qps=200",
            "--kube-api-burst=200",
        )
        self._start("kube-scheduler", admin, "--leader-elect=false")
        self._start("coredns", "-conf", str(corefile))

    def _begin_imports(self) -> list[subprocess.Popen[bytes]]:
        for node in self.nodes:
            what = f"containerd on {node.site.name}"
            wait_for(what, node.has_containerd, deadline_s=READY_DEADLINE_S)
        return [node.begin_import(self._images) for node in self.nodes]

    def _finish_imports(self, imports: Sequence[subprocess.Popen[bytes]]) -> None:
        for node, process in zip(self.nodes, imports, strict=True):
            said = node.folder / "import.log"
            assert process.wait() == 0, f"cannot import the images: {said.read_text()}"

    def _start_kubelets(self) -> None:
        for node in self.nodes:
            node.start_kubelet(self.control_plane.kubeconfig_for(_kubelet_user(node.site)))

    def _start(self, program: str, *arguments: str) -> None:
        log = self.folder / f"{program}.log"
        child = Child([self.programs[program], *arguments], log, self.world.enter_network())
        self._children.append(child)

    def _wait_until_ready(self) -> None:
        names = " ".join(site.name for site in self._sites)
        ready = '{range .items[*]}{.status.conditions[?(@.type=="Ready")].status} {end}'

        def all_ready() -> bool:
            self._check()
            said = self.kubectl("get", "nodes", "-o", f"jsonpath={ready}").split()
            return said == ["True"] * len(self.nodes)

        wait_for(f"{names} to be ready", all_ready, deadline_s=READY_DEADLINE_S)
        wait_for("the default service account", self._has_account, deadline_s=READY_DEADLINE_S)

    def _check(self) -> None:
        """Raise AssertionError if a program that should run has exited."""
        check_alive(self._children, "the world")
        for node in self.nodes:
            node.check()

    def _has_account(self) -> bool:
        said = self.control_plane.kubectl("get", "serviceaccount", "default", check=False)
        return "NotFound" not in said

    def _wait_until_healthy(self, node: ClusterNode) -> None:
        def healthy() -> bool:
            self._check()
            url = f"http://{self.families[0].loopback}:10256/healthz"
            try:
                node.holder.run("curl", "-gsf", "-o", "/dev/null", "--noproxy", "*", url)
            except AssertionError:
                return False
            return True

        what = f"the proxy of {node.site.name} to be healthy"
        wait_for(what, healthy, deadline_s=READY_DEADLINE_S)
