"""Finds where BPF programs are attached and named: the mounts of cgroup v2 and of bpffs.

Cgroup v2 may be mounted beside version 1, and in a container beside the container's own part of it.

Source: proc_pid_mountinfo(5); cgroup_namespaces(7).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

_MOUNTS = Path("/proc/self/mountinfo")
_BPFFS = Path("/sys/fs/bpf")
_UP = ".."


class _Mount(NamedTuple):
    kind: str
    root: PurePosixPath
    """The folder of the file system that is mounted, as this process's namespaces name it."""
    point: Path


def find_cgroup(named: str = "", mounts: Path = _MOUNTS) -> Path | None:
    """Return the named folder, or the mounted one of cgroup v2 that contains most; None: none."""
    if named:
        return Path(named)
    found = [mount for mount in _read(mounts) if mount.kind == "cgroup2"]
    return min(found, key=lambda mount: _depth(mount.root)).point if found else None


def find_bpffs(mounts: Path = _MOUNTS) -> Path | None:
    """Return a mount of bpffs, at its usual place if there is one; None: none is mounted."""
    found = [mount.point for mount in _read(mounts) if mount.kind == "bpf"]
    return _BPFFS if _BPFFS in found else next(iter(found), None)


def _depth(root: PurePosixPath) -> int:
    """Return how far a root is below that of this process's cgroup namespace; above is negative."""
    return sum(-1 if part == _UP else 1 for part in root.parts if part != "/")


def _read(mounts: Path) -> Iterator[_Mount]:
    for line in mounts.read_text(errors="replace").splitlines():
        fields, _, rest = line.partition(" - ")
        _mount, _parent, _device, root, point, *_ = fields.split()
        yield _Mount(rest.split()[0], PurePosixPath(_plain(root)), Path(_plain(point)))


def _plain(text: str) -> str:
    """Return a path whose blanks the kernel has written as octal numbers."""
    return text.encode().decode("unicode_escape").encode("latin-1").decode(errors="replace")
