"""Lists the programs that are attached to connections of a cgroup, with their names.

    attached ids ──┬── the kernel's name of a program    needs CAP_SYS_ADMIN
                   └── the name under which it, or a link that runs it, is pinned    needs CAP_BPF

Rule 1: nothing is changed; pins are opened and closed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from . import calls

SECTIONS = ("cgroup/connect4", "cgroup/connect6", "sockops")
"""Hooks at which another program can interfere with the proxy's own."""
# The maximum number of pins that are searched. Cilium has a few hundred on a node with as many
# pods.
_PINS_MAX = 4096
_ALLOW_MULTI = 2  # include/uapi/linux/bpf.h
_LINK, _PROGRAM = "anon_inode:bpf-link", "anon_inode:bpf-prog"


class Hook(NamedTuple):
    """A program that is attached to a cgroup."""

    section: str
    """One of :data:`SECTIONS`."""
    program: int
    """The program's id in the kernel."""
    name: str
    """The kernel's name of the program, at most 15 bytes; empty if it can't be read."""
    pin: str
    """Its path in the mount of bpffs; empty if it has none, or in another mount."""
    is_sole: bool = False
    """It was attached without BPF_F_ALLOW_MULTI, so the kernel attaches no further program."""


def attached_at(cgroup: Path) -> list[tuple[str, int, bool]]:
    """Return section, id and ``is_sole`` of each program that :func:`read_hooks` lists."""
    folder = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        found = {one: calls.attached(one, folder) for one in SECTIONS}
        return [(s, p, not flags & _ALLOW_MULTI) for s, (flags, ids) in found.items() for p in ids]
    finally:
        os.close(folder)


def read_hooks(cgroup: Path, names: Path | None) -> list[Hook]:
    """Return the programs attached to a cgroup itself, in the order in which they run.

    Args:
        cgroup: A cgroup v2 directory.
        names: A mount of bpffs.

    Raises:
        OSError: CAP_NET_ADMIN is missing, or the directory isn't in cgroup v2.
    """
    found = attached_at(cgroup)
    pins = dict(_pins(names)) if found and names else {}
    return [Hook(s, p, calls.program_name(p), pins.get(p, ""), sole) for s, p, sole in found]


def _pins(names: Path) -> Iterator[tuple[int, str]]:
    """Yield the id and the path of each program that is pinned in a mount of bpffs."""
    paths = (Path(folder, name) for folder, _, files in os.walk(names) for name in files)
    for path in islice(paths, _PINS_MAX):
        try:
            descriptor = calls.pinned(path)
        except OSError:
            # The pin was removed meanwhile, or belongs to another user.
            continue
        try:
            kind = str(Path(f"/proc/self/fd/{descriptor}").readlink()).replace("_link", "-link")
            if kind == _LINK:
                yield calls.link_info(descriptor).program, str(path.relative_to(names))
            elif kind == _PROGRAM:
                yield calls.program_info(descriptor).id, str(path.relative_to(names))
        finally:
            os.close(descriptor)
