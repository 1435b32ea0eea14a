"""Determines which kernel part, permission or mount BPF programs at connect() lack on this node.

    kernel ─▶ capabilities ─▶ bpf(2) ─▶ locked memory ─▶ a folder of cgroup v2 ─▶ a mount of bpffs

If an item is missing, later items aren't checked.
"""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ...kernel.bpf import calls
from ...kernel.bpf.objects import MapSpec
from ...kernel.offers import FOR_SOCKET_LB, KernelOffers
from ...kernel.privileges import CAP_NET_ADMIN, effective_capabilities

# Source: capabilities(7). Before Linux 5.8 there was no CAP_BPF; CAP_SYS_ADMIN includes it.
_CAP_SYS_ADMIN, _CAP_SYS_RESOURCE, _CAP_BPF = 21, 24, 39
_ARRAY = 2
LOCKED_BYTES = 128 << 20
"""The required locked memory in bytes: more than all maps use with 10,000 Services."""


class Lack(NamedTuple):
    """A reason why BPF programs at connect() can't work here."""

    what: str
    hint: str


@dataclass(frozen=True, slots=True)
class HookRights:
    """The kernel parts, capabilities and mounts for attaching BPF programs to connect()."""

    kernel: KernelOffers
    capabilities: int
    """This process's effective capabilities, one bit each."""
    locked_max: int | None = None
    """The limit of all BPF maps of this user in bytes; None if only memory limits them."""
    cgroup: Path | None = None
    """The cgroup v2 directory to which programs are attached; None if there is none."""
    names: Path | None = None
    """The mount point of bpffs, for pins; None if there is none."""
    is_read_only: bool = False
    """Whether that mount is read-only."""

    def lack(self) -> Lack | None:
        """Return the first missing requirement; None if the programs can work."""
        return next(self._lacks(), None)

    def _lacks(self) -> Iterator[Lack]:
        if words := self.kernel.words(FOR_SOCKET_LB):
            yield Lack(words, "a kernel with these options, or --socket-lb=off")
        if missing := list(_missing(self.capabilities)):
            yield Lack(
                f"{' and '.join(missing)} missing: connect() can't be hooked",
                "run as root, or grant them to the container (the chart's socketLB does)",
            )
        if self.kernel.untried.intersection(FOR_SOCKET_LB):
            yield Lack(
                "bpf(2) is forbidden, in spite of CAP_BPF: by a seccomp profile, or in a user "
                "namespace",
                "a container runtime whose default profile admits bpf(2) with CAP_BPF, or a "
                "seccompProfile of your own",
            )
        if self.locked_max is not None and self.locked_max < LOCKED_BYTES:
            yield Lack(
                f"this kernel counts maps as locked memory, of which {self.locked_max >> 10} KiB "
                "are allowed",
                f"LimitMEMLOCK={LOCKED_BYTES >> 20}M in the unit of the proxy or of the container "
                "runtime, or the capability SYS_RESOURCE",
            )
        if self.cgroup is None:
            yield Lack(
                "no folder of cgroup v2 is mounted",
                "mount -t cgroup2 none /sys/fs/cgroup/unified, or the chart's socketLB, which "
                "mounts the node's",
            )
        if self.names is None:
            yield Lack(
                "no bpffs is mounted",
                "mount -t bpf bpf /sys/fs/bpf, or the chart's socketLB, which mounts the node's",
            )
        elif self.is_read_only:
            yield Lack(
                f"{self.names} is mounted read-only", "ReadWritePaths=/sys/fs/bpf in its unit"
            )


def read_rights(kernel: KernelOffers, cgroup: Path | None, names: Path | None) -> HookRights:
    """Read this process's permissions; this may briefly set its soft limit of locked memory to 0.

    Args:
        kernel: The features of the kernel; the parts for connect hooks must have been tried.
        cgroup: The cgroup v2 directory for the programs; None if there is none.
        names: The mount of bpffs; None if there is none.
    """
    capabilities = effective_capabilities()
    is_read_only = bool(names and os.statvfs(names).f_flag & os.ST_RDONLY)
    return HookRights(kernel, capabilities, _locked_max(capabilities), cgroup, names, is_read_only)


def _missing(capabilities: int) -> Iterator[str]:
    is_admin = capabilities >> _CAP_SYS_ADMIN & 1
    if not (is_admin or capabilities >> _CAP_BPF & 1):
        yield "CAP_BPF"
    if not capabilities >> CAP_NET_ADMIN & 1:
        yield "CAP_NET_ADMIN"


def _locked_max(capabilities: int) -> int | None:
    """Return the limit of all BPF maps of this user in bytes; None if they are unlimited."""
    _, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if capabilities >> _CAP_SYS_RESOURCE & 1 or hard == resource.RLIM_INFINITY:
        return None
    return hard if _counts_maps() else None


def _counts_maps() -> bool:
    """Return whether maps count as locked memory, as before Linux 5.11."""
    with _no_locked_memory():
        try:
            os.close(calls.create_map("probe", MapSpec(_ARRAY, 4, 8, 1)))
        except OSError as exc:
            return exc.errno == errno.EPERM
    return False


@contextmanager
def _no_locked_memory() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (soft, hard))
