"""The programs of a node, built from Go modules into the cache of the control plane's binaries.

runc is Debian's, because it is the only program that needs a C library, and the package suffices.
"""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from ..build import (
    KUBERNETES_VERSION_PACKAGES,
    BuildError,
    Target,
    Write,
    build_missing,
    cache_root,
    version_key,
)

HERE = Path(__file__).parent
KUBE = HERE.parent / "kube"
CONTAINERS = HERE / "containers"
COREDNS = HERE / "coredns"

KUBERNETES = "k8s.io/kubernetes"
CONTAINERD = "github.com/containerd/containerd/v2"
CNI_PLUGINS = "github.com/containernetworking/plugins"
GINKGO = "github.com/onsi/ginkgo/v2"


def _kubernetes(binary: str, package: str = "", *, is_test: bool = False) -> Target:
    path = f"{KUBERNETES}/{package or f'cmd/{binary}'}"
    return Target(binary, path, KUBERNETES, KUBE, KUBERNETES_VERSION_PACKAGES, is_test=is_test)


def _containerd(binary: str) -> Target:
    return Target(binary, f"{CONTAINERD}/cmd/{binary}", CONTAINERD, CONTAINERS)


def _cni(kind: str, binary: str) -> Target:
    return Target(binary, f"{CNI_PLUGINS}/plugins/{kind}/{binary}", CNI_PLUGINS, CONTAINERS)


NODE_TARGETS = (
    _kubernetes("kubelet"),
    _kubernetes("kube-controller-manager"),
    _kubernetes("kube-scheduler"),
    _kubernetes("kube-proxy"),
    _kubernetes("agnhost", "test/images/agnhost"),
    _kubernetes("regression-issue-74839", "test/images/regression-issue-74839"),
    _containerd("containerd"),
    _containerd("containerd-shim-runc-v2"),
    _containerd("ctr"),
    _cni("main", "bridge"),
    _cni("main", "loopback"),
    _cni("main", "ptp"),
    _cni("meta", "portmap"),
    _cni("ipam", "host-local"),
    Target("coredns", ".", "github.com/coredns/coredns", COREDNS),
)
UPSTREAM_TARGETS = (
    Target("ginkgo", f"{GINKGO}/ginkgo", GINKGO, KUBE),
    _kubernetes("e2e.test", "test/e2e", is_test=True),
)


ALL_TARGETS = NODE_TARGETS + UPSTREAM_TARGETS


@dataclass(frozen=True, slots=True)
class Programs:
    """The paths of the programs; all of them exist."""

    folder: Path
    runc: Path

    def __getitem__(self, name: str) -> Path:
        """Return the path of a target's program."""
        return self.folder / name


def ensure_programs(write: Write = sys.stdout.write, *, with_upstream: bool = False) -> Programs:
    """Return a cluster's programs, after building missing ones.

    Args:
        write: As for `build.ensure_binaries`.
        with_upstream: Whether to include upstream's tests and their runner.

    Raises:
        NoGoError: A program is missing, and there is no Go to build it.
        BuildError: Go failed, or runc isn't installed.
    """
    runc = shutil.which("runc") or shutil.which("runc", path="/usr/sbin:/sbin")
    if runc is None:
        raise BuildError("cannot run containers: there is no runc (install Debian's package runc)")
    folder = programs_folder()
    build_missing(ALL_TARGETS if with_upstream else NODE_TARGETS, folder, write)
    return Programs(folder, Path(runc))


def ensure_program(name: str, write: Write = sys.stdout.write) -> Path:
    """Return the path of a program other than runc, after building it if it is missing.

    Raises:
        NoGoError: The program is missing, and there is no Go to build it.
        BuildError: Go failed.
    """
    folder = programs_folder()
    build_missing(tuple(t for t in NODE_TARGETS if t.binary == name), folder, write)
    return folder / name


def programs_folder() -> Path:
    """Return the folder of the programs; it may not exist yet."""
    return cache_root() / version_key(NODE_TARGETS) / "bin"


def kubernetes_version() -> str:
    """Return the version of all Kubernetes programs, with its ``v``."""
    return NODE_TARGETS[0].version
