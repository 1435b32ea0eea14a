"""Loads and pins one proxy's programs and maps; the pins outlive the process.

    <bpffs>/userspace-proxy/<network namespace>/<proxy>/
        frontends4-1f0c93a2, …   the maps, each with a digest of its layout and fields
        connect4, …              links, each of which attaches a program to the cgroup

As with rules and locks, a proxy's name is unique only within its network namespace.

Rule 1: programs are replaced without a gap: the next process replaces them in their links, and
reuses maps with the same layout.
Rule 2: pins and links that another program removes are restored from descriptors.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from ...clocks import Clocks
from ...errors import SteeringError
from ...kernel.bpf import calls
from ...kernel.bpf.objects import KINDS, BpfObject, MapSpec, read_object
from ...kernel.own_namespace import network_namespace
from ..names import proxy_label
from .other_hooks import OWN_PINS
from .socket_maps import FIELDS, SETTINGS_KEY, DialSettings

_OBJECT = Path(__file__).with_name("socket_lb.bpf.o")
TERM_NS = 60 * 10**9
"""The programs' term: they stop translating unless a process renews it. Starting a process takes a
few seconds, or a minute if crashes delay it."""
# The directory of a proxy without a name; no proxy can have this name.
_WITHOUT_NAME = "_"
# Programs that follow connections are attached before programs that translate dials, so that no
# translated dial is missed.
_ORDER = sorted(KINDS, key=lambda section: "/connect" in section)


class Programs:
    """The loaded, attached and pinned programs and maps.

    Methods raise an OSError if the kernel refuses a call.

    Args:
        cgroup: The cgroup v2 directory to which programs are attached.
        names: The mount point of bpffs.
    """

    def __init__(self, cgroup: Path, names: Path, proxy_name: str) -> None:
        self.cgroup = cgroup
        self.specs: dict[str, MapSpec] = {}
        self.maps: dict[str, int] = {}
        """The descriptors of the maps."""
        self._folder = folder_of(names, proxy_label(proxy_name))
        self._paths: dict[str, Path] = {}
        self._programs: dict[str, int] = {}
        self._links: dict[str, int] = {}

    def load(self) -> None:
        """Open or create the maps, and load the programs, without attaching them."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        parts = read_object(_OBJECT.read_bytes())
        with calls.as_locked_memory():
            self._load(parts)

    def _load(self, parts: BpfObject) -> None:
        for name, spec in parts.maps.items():
            self._paths[name] = self._folder / map_pin(name, spec, FIELDS.get(name, ()))
            self.maps[name] = _open(self._paths[name], name, spec)
            self.specs[name] = spec
        self._programs = calls.load_object(parts, self.maps)

    def attach(self) -> None:
        """Attach the programs, or put them into an earlier run's links; remove unused pins."""
        for section in sorted(self._programs, key=_ORDER.index):
            path = self._paths[section] = self._folder / section.rpartition("/")[2]
            found = None
            with contextlib.suppress(FileNotFoundError):
                found = calls.pinned(path)
            if found is not None and calls.link_info(found).cgroup == self._inode():
                calls.replace_program(found, self._programs[section])
                self._links[section] = found
                continue
            self._attach(section)
            if found is not None:
                _end(found)
        for path in set(self._folder.iterdir()) - set(self._paths.values()):
            path.unlink()

    def repair(self) -> list[str]:
        """Restore pins and links that another program has removed; return the pins' names."""
        restored = []
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for section, link in list(self._links.items()):
            if calls.link_info(link).cgroup != self._inode():
                self._attach(section)
                os.close(link)
                restored.append(self._paths[section].name)
        for name, descriptor in (*self.maps.items(), *self._links.items()):
            path = self._paths[name]
            if not path.exists():
                calls.pin(descriptor, path)
                restored.append(path.name)
        return restored

    def ids(self) -> list[int]:
        return [calls.program_info(program).id for program in self._programs.values()]

    def map_bytes(self) -> int:
        """Return the size of all maps in bytes, as the kernel counts it."""
        return sum(map(calls.memory_of, self.maps.values()))

    def close(self) -> None:
        """Close all descriptors; programs stay attached."""
        for held in (self._links, self._programs, self.maps):
            for descriptor in held.values():
                os.close(descriptor)
            held.clear()

    def _inode(self) -> int:
        return self.cgroup.stat().st_ino

    def _attach(self, section: str) -> None:
        folder = os.open(self.cgroup, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            link = calls.attach(section, self._programs[section], folder)
        except PermissionError as exc:
            # A missing permission isn't the cause, because this process has just loaded a program.
            only = f"another program at {section} admits no other (without BPF_F_ALLOW_MULTI)"
            raise OSError(exc.errno, only) from exc
        finally:
            os.close(folder)
        path = self._paths[section]
        path.unlink(missing_ok=True)
        calls.pin(link, path)
        self._links[section] = link


def map_pin(name: str, spec: MapSpec, fields: Sequence[str]) -> str:
    """Return the name of a map's pin; processes share only maps whose pins have the same name.

    Args:
        fields: The fields of the map's values or records.
    """
    digest = hashlib.sha256(repr((name, *spec, *fields)).encode()).hexdigest()
    return f"{name}-{digest[:8]}"


def folder_of(names: Path, label: str) -> Path:
    """Return the folder of one proxy's pins, in this thread's network namespace."""
    # Replace dots, which the kernel forbids in a pin's name, by plus, which no label contains.
    return _here(names) / (label.replace(".", "+") or _WITHOUT_NAME)


def _here(names: Path) -> Path:
    return names / OWN_PINS / str(network_namespace("thread-self"))


def hooked_labels(names: Path | None = None) -> list[str]:
    """Return the labels of all proxies with hooks in this network namespace, sorted.

    Args:
        names: The mount of bpffs; None to search for it.
    """
    names = names or find_bpffs()
    folder = names and _here(names)
    if folder is None or not _is_there(folder):
        return []
    labels = (one.name.replace("+", ".") for one in folder.iterdir())
    return sorted("" if label == _WITHOUT_NAME else label for label in labels)


def remove_hooks(proxy_name: str, names: Path | None = None) -> bool:
    """Detach and remove a proxy's hooks; return whether there were any. Idempotent.

    Args:
        names: The mount of bpffs; None to search for it.

    Raises:
        SteeringError: The hooks can't be removed.
    """
    names = names or find_bpffs()
    folder = names and folder_of(names, proxy_label(proxy_name))
    if folder is None or not _is_there(folder):
        return False
    _remove_all(folder)
    return True


def remove_abandoned_hooks(names: Path | None = None) -> list[str]:
    """Detach and remove hooks left by proxies of network namespaces that no longer exist.

    This process can't check whether another namespace exists, and namespace numbers are reused. But
    a running proxy always renews its term, so hooks whose term has expired are abandoned.

    Args:
        names: The mount of bpffs; None to search for it.

    Returns: ``<network namespace>/<proxy>`` for each proxy.

    Raises:
        SteeringError: The hooks can't be removed.
    """
    names = names or find_bpffs()
    if names is None or not _is_there(names / OWN_PINS):
        return []
    here, removed = _here(names), []
    for folder in sorted((names / OWN_PINS).glob("*/*")):
        if folder.parent != here and _is_abandoned(folder):
            _remove_all(folder)
            removed.append(str(folder.relative_to(names / OWN_PINS)))
    return removed


def _is_abandoned(folder: Path) -> bool:
    """Return whether the term in a folder's settings has expired; False if new or unreadable."""
    try:
        # A process that is starting hasn't set its term yet, so a new folder isn't abandoned.
        is_new = Clocks.time() - folder.stat().st_mtime < TERM_NS / 1e9
        return not is_new and not any(map(_has_term, folder.glob("settings-*")))
    except OSError:
        return False


def _has_term(settings: Path) -> bool:
    """Return whether the term in a settings map hasn't expired; True if its layout is unknown."""
    table, value_bytes = calls.pinned(settings), len(DialSettings().pack())
    try:
        # A map of another version may have a different layout, in which the term can't be found.
        if calls.map_info(table).value_bytes != value_bytes:
            return True
        value = calls.lookup(table, SETTINGS_KEY, value_bytes) or bytes(value_bytes)
        return DialSettings.unpack(value).valid_until_ns > time.monotonic_ns()
    finally:
        os.close(table)


def _is_there(folder: Path) -> bool:
    """Return whether a folder of this program exists; False if this user can't access it."""
    try:
        return folder.is_dir()
    except PermissionError:
        return False


def _remove_all(folder: Path) -> None:
    try:
        _remove(folder)
    except OSError as exc:
        raise SteeringError(f"cannot remove connect() hooks: {exc.strerror}") from exc


def _remove(folder: Path) -> None:
    for path in sorted(folder.iterdir(), key=lambda path: "connect" not in path.name):
        if "-" not in path.name:
            # Detach the link first: a process that hands over to this process keeps it open.
            with contextlib.suppress(OSError):
                _end(calls.pinned(path))
        path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        # A parent folder that contains other proxies' pins isn't removed.
        for empty in (folder, folder.parent, folder.parent.parent):
            empty.rmdir()


def _open(path: Path, name: str, spec: MapSpec) -> int:
    try:
        return calls.pinned(path)
    except FileNotFoundError:
        descriptor = calls.create_map(name, spec)
        calls.pin(descriptor, path)
        return descriptor


def _end(link: int) -> None:
    """Detach a link, if it is attached, and close it."""
    with contextlib.suppress(OSError):
        calls.detach(link)
    os.close(link)


_MOUNTS = Path("/proc/self/mountinfo")
_BPFFS = Path("/sys/fs/bpf")
_UP = ".."


class _Mount(NamedTuple):
    kind: str
    root: PurePosixPath
    """The folder of the file system that is mounted, as seen from this process's namespaces."""
    point: Path


def find_cgroup(named: str = "", mounts: Path = _MOUNTS) -> Path | None:
    """Return the named directory, or the topmost mount of cgroup v2; None if there is none.

    Cgroup v2 may be mounted next to version 1, and in a container next to the container's own
    subtree. Source: proc_pid_mountinfo(5); cgroup_namespaces(7).
    """
    if named:
        return Path(named)
    found = [mount for mount in _mounted(mounts) if mount.kind == "cgroup2"]
    return min(found, key=lambda mount: _depth(mount.root)).point if found else None


def find_bpffs(mounts: Path = _MOUNTS) -> Path | None:
    """Return a mount of bpffs, preferably at its usual path; None if none is mounted."""
    found = [mount.point for mount in _mounted(mounts) if mount.kind == "bpf"]
    return _BPFFS if _BPFFS in found else next(iter(found), None)


def _depth(root: PurePosixPath) -> int:
    """Return a root's depth below the root of this cgroup namespace; negative if it is above."""
    return sum(-1 if part == _UP else 1 for part in root.parts if part != "/")


def _mounted(mounts: Path) -> Iterator[_Mount]:
    for line in mounts.read_text(errors="replace").splitlines():
        fields, _, rest = line.partition(" - ")
        _mount, _parent, _device, root, point, *_ = fields.split()
        yield _Mount(rest.split()[0], PurePosixPath(_plain(root)), Path(_plain(point)))


def _plain(text: str) -> str:
    """Return a path with the kernel's octal escapes, for example of spaces, decoded."""
    return text.encode().decode("unicode_escape").encode("latin-1").decode(errors="replace")
