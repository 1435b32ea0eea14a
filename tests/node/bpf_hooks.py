"""Attaches BPF programs for connect() to a test's own cgroup."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hooked import HookedGroup
from userspace_proxy.kernel.bpf import calls
from userspace_proxy.kernel.bpf.objects import read_object
from userspace_proxy.kernel.offers import try_parts

DIALLED = Path(__file__).with_name("dialled.bpf.o")


@contextlib.contextmanager
def bpf_rights() -> Iterator[None]:
    """Skip the test if it may not load programs; remove RLIMIT_MEMLOCK for Linux before 5.11."""
    if try_parts(["connect hooks"]) == {"connect hooks": errno.EPERM}:
        pytest.skip("needs root, outside a user namespace")
    with calls.as_locked_memory():
        yield


@contextlib.contextmanager
def mounted(folder: Path, kind: str) -> Iterator[Path]:
    folder.mkdir()
    subprocess.run(["mount", "-t", kind, kind, folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


@contextlib.contextmanager
def own_cgroup(folder: Path) -> Iterator[Path]:
    """Mount cgroup v2, and create a cgroup; at the end, remove it and the cgroups below it."""
    with mounted(folder, "cgroup2") as root, HookedGroup("test", root) as group:
        yield group.folder


@contextlib.contextmanager
def in_cgroup(cgroup: Path) -> Iterator[None]:
    """During the block, move this process into a cgroup below a mount; create a missing one."""
    before = Path("/proc/self/cgroup").read_text().rpartition("0::/")[2].strip()
    root = next(folder for folder in (cgroup, *cgroup.parents) if folder.is_mount())
    cgroup.mkdir(exist_ok=True)
    (cgroup / "cgroup.procs").write_text("0")
    try:
        yield
    finally:
        (root / before / "cgroup.procs").write_text("0")


class Attached:
    """The programs of an object file, attached to a cgroup until :meth:`close`."""

    def __init__(self, cgroup: Path, compiled: Path) -> None:
        self._stack = contextlib.ExitStack()
        with contextlib.ExitStack() as stack:
            self.parts = read_object(compiled.read_bytes())
            self.maps = {name: calls.create_map(name, x) for name, x in self.parts.maps.items()}
            programs = calls.load_object(self.parts, self.maps)
            place = os.open(cgroup, os.O_RDONLY)
            self.links = {
                section: calls.attach(section, program, place)
                for section, program in programs.items()
            }
            # Links keep references to programs, and programs to their maps.
            for descriptor in (place, *programs.values()):
                os.close(descriptor)
            for descriptor in (*self.maps.values(), *self.links.values()):
                stack.callback(os.close, descriptor)
            self._stack = stack.pop_all()

    def close(self) -> None:
        self._stack.close()


class Dialled(Attached):
    """The programs of dialled.bpf.c, which redirect dials of one address to another."""

    def __init__(self, cgroup: Path) -> None:
        super().__init__(cgroup, DIALLED)

    def lead(self, frontend: tuple[str, int], endpoint: tuple[str, int]) -> None:
        calls.update(self.maps["endpoints"], dialled_key(frontend), dialled_key(endpoint))
        calls.update(self.maps["counts"], dialled_key(frontend), bytes(24))

    def measured(self, frontend: tuple[str, int]) -> int:
        """Return the number of measured round-trip times."""
        counted = calls.lookup(self.maps["counts"], dialled_key(frontend), 24)
        times: int = struct.unpack("=QQQ", counted or b"")[2]
        return times


def dialled_key(address: tuple[str, int]) -> bytes:
    """Return an address in the form of the keys and values in the maps of dialled.bpf.c."""
    host, port = address
    return socket.inet_aton(host) + struct.pack("!H", port) + bytes(2)
