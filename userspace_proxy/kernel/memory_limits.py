"""Finds the memory limits of this process, and reads the memory in use.

    cgroup v2   memory.max, memory.high    memory.current         less the file cache
    cgroup v1   memory.limit_in_bytes      memory.usage_in_bytes  less the file cache
    RLIMIT_AS                              the address space of this process

Rule 1: the lowest limit of this cgroup and its ancestors applies.
Rule 2: file cache doesn't count as used, because the kernel reclaims it before killing a process.
Rule 3: a limit that can't be read is ignored.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple, Protocol

# In cgroup v1, "no limit" is LONG_MAX, rounded down to pages.
_UNLIMITED = 2**60
_READ_BYTES = 16 * 1024


class MemoryLimit(Protocol):
    """A memory limit of this process; all numbers are bytes."""

    @property
    def limit(self) -> int:
        """The limit in bytes."""

    @property
    def counts_sockets(self) -> bool:
        """Whether the kernel's socket buffers count as used."""

    def used(self) -> int:
        """Return the number of bytes in use; 0 if it can't be read."""

    def estimate(self) -> int:
        """Estimate :meth:`used` at less cost, with the file cache of the last exact reading."""


class _Names(NamedTuple):
    """The file names of one version of cgroups."""

    limits: tuple[str, ...]
    used: str
    cache: tuple[bytes, ...]
    """Names of the file cache's lines in ``memory.stat``, which include descendant cgroups."""


_V2 = _Names(("memory.max", "memory.high"), "memory.current", (b"inactive_file", b"active_file"))
_V1 = _Names(
    ("memory.limit_in_bytes",),
    "memory.usage_in_bytes",
    (b"total_inactive_file", b"total_active_file"),
)


class CgroupMemory:
    """The memory limit of one cgroup."""

    def __init__(self, folder: Path, names: _Names, limit: int) -> None:
        self.limit = limit
        self.counts_sockets = names is _V2
        self._used_path = str(folder / names.used)
        self._stat_path = str(folder / "memory.stat")
        self._names = names
        self._cache = 0

    def used(self) -> int:
        self._cache = 0
        for line in _read(self._stat_path).splitlines():
            name, _, value = line.partition(b" ")
            if name in self._names.cache:
                self._cache += int(value)
        return self.estimate()

    def estimate(self) -> int:
        return max(0, int(_read(self._used_path) or 0) - self._cache)


class AddressSpace:
    """RLIMIT_AS, the limit of this process's address space."""

    counts_sockets = False

    def __init__(self, limit: int) -> None:
        self.limit = limit

    def used(self) -> int:
        pages = _read("/proc/self/statm").partition(b" ")[0]
        return int(pages or 0) * resource.getpagesize()

    def estimate(self) -> int:
        return self.used()


def find_memory_limits(proc: Path = Path("/proc/self")) -> list[MemoryLimit]:
    """Return the lowest limit of this process's cgroups, and its address space's limit, if any."""
    found: list[MemoryLimit] = []
    # If limits are equal, choose the outermost cgroup, whose usage includes other cgroups.
    cgroups = [c for folder, names in _cgroups(proc) if (c := _limited(folder, names)) is not None]
    if cgroups:
        found.append(min(reversed(cgroups), key=lambda cgroup: cgroup.limit))
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    if soft != resource.RLIM_INFINITY:
        found.append(AddressSpace(soft))
    return found


def _limited(folder: Path, names: _Names) -> CgroupMemory | None:
    texts = [_read(str(folder / name)).strip() for name in names.limits]
    limits = [int(text) for text in texts if text.isdigit()]
    limit = min(limits, default=_UNLIMITED)
    return CgroupMemory(folder, names, limit) if limit < _UNLIMITED else None


def _cgroups(proc: Path) -> Iterator[tuple[Path, _Names]]:
    """Yield the cgroup that accounts for this process's memory, then its ancestors."""
    for mount_root, mount_point, names in _mounts(proc):
        path = _path_of(proc, names)
        if path is None:
            continue
        # In a container, the mount often shows only the container's cgroup, and the path may be
        # relative to the cgroup namespace of the host or of another container: if the path isn't
        # found, use the mount's root.
        inside = PurePosixPath(path.removeprefix(mount_root.rstrip("/")).lstrip("/"))
        if ".." in inside.parts or not _is_there(mount_point / inside):
            inside = PurePosixPath()
        yield from ((mount_point / folder, names) for folder in (inside, *inside.parents))


def _is_there(folder: Path) -> bool:
    """Return whether this process can see a folder: a worker may lack access to some mounts."""
    try:
        return folder.is_dir()
    except OSError:
        return False


def _mounts(proc: Path) -> Iterator[tuple[str, Path, _Names]]:
    """Yield root, path and file names of each cgroup mount that accounts for memory.

    Source: proc_pid_mountinfo(5).
    """
    for line in _read(str(proc / "mountinfo"), to_end=True).decode(errors="replace").splitlines():
        fields, _, kind = line.partition(" - ")
        if kind.startswith("cgroup2 "):
            names = _V2
        elif kind.startswith("cgroup ") and "memory" in kind.split()[-1].split(","):
            names = _V1
        else:
            continue
        _mount, _parent, _device, root, point, *_ = fields.split()
        yield root, Path(point), names


def _path_of(proc: Path, names: _Names) -> str | None:
    """Return the path of this process's cgroup, or None. Source: cgroups(7), /proc/pid/cgroup."""
    for line in _read(str(proc / "cgroup")).decode(errors="replace").splitlines():
        number, controllers, path = line.split(":", 2)
        if (number == "0") if names is _V2 else ("memory" in controllers.split(",")):
            return path
    return None


def _read(path: str, *, to_end: bool = False) -> bytes:
    """Return the first 16 KiB of a file, or all of it (``to_end``); empty if it can't be read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    content = b""
    try:
        while part := os.read(descriptor, _READ_BYTES):
            content += part
            if not to_end:
                break
    except OSError:
        return b""
    finally:
        os.close(descriptor)
    return content
