"""Lists other programs at the hooks that the proxy uses, and decides whether they interfere.

    attached ids ──┬── the kernel's name of a program    needs CAP_SYS_ADMIN
                   └── the name under which it, or a link that runs it, is pinned    needs CAP_BPF

    connect()  ─▶ each program may replace the address, and the next program sees the new address
    sock_ops   ─▶ each program sets the events for which all programs are called

Cilium and Calico translate Services there: two programs can't both translate an address.

Rule 1: nothing is changed; pins are only opened and closed.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from ...kernel.bpf import calls

SECTIONS = ("cgroup/connect4", "cgroup/connect6", "sockops")
"""Hooks at which another program can interfere with the proxy's programs."""
# The maximum number of pins that are searched. Cilium has a few hundred pins on a node with a few
# hundred pods.
_PINS_MAX = 4096
_ALLOW_MULTI = 2  # Source: include/uapi/linux/bpf.h.
_LINK, _PROGRAM = "anon_inode:bpf-link", "anon_inode:bpf-prog"
OWN_PINS = "userspace-proxy"
"""The bpffs directory with the pins of all userspace-proxies."""
_SOCKOPS = "sockops"
# The beginnings of a program's name, which the kernel truncates to 15 bytes, or of its pin's name.
_CILIUM = ("cil_sock", "sock4_connect", "sock6_connect", "cilium/")
_CALICO = ("calico_connect", "cali_ctlb", "calico")
_REPLACEMENTS: Mapping[tuple[str, ...], tuple[str, str]] = {
    _CILIUM: ("Cilium", "kubeProxyReplacement=false in Cilium"),
    _CALICO: ("Calico", "bpfConnectTimeLoadBalancing: Disabled in Calico's FelixConfiguration"),
}


class Hook(NamedTuple):
    """A program that is attached to a cgroup."""

    section: str
    """One of :data:`SECTIONS`."""
    program: int
    """The program's id in the kernel."""
    name: str
    """The name of the program in the kernel, at most 15 bytes; empty if it can't be read."""
    pin: str
    """The path of the program's pin in the mount of bpffs; empty if it isn't pinned there."""
    is_sole: bool = False
    """Whether the program lacks BPF_F_ALLOW_MULTI, so that the kernel attaches no other one."""


@dataclass(frozen=True, slots=True)
class OtherHook:
    """A program, not of a userspace-proxy, that may interfere with the proxy's hooks."""

    what: str
    """The actual or possible effect of the program."""
    where: str
    """The program's name, id, and hook."""
    hint: str
    replaces: bool = False
    """Whether the program translates Services, or prevents other programs from being attached, so
    that the proxy attaches no hooks."""


def attached_at(cgroup: Path) -> list[tuple[str, int, bool]]:
    """Return section, id and ``is_sole`` of each program; raise as :func:`read_hooks` does."""
    folder = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        found = {one: calls.attached(one, folder) for one in SECTIONS}
        return [(s, p, not flags & _ALLOW_MULTI) for s, (flags, ids) in found.items() for p in ids]
    finally:
        os.close(folder)


def read_hooks(cgroup: Path, names: Path | None) -> list[Hook]:
    """Return the programs attached to a cgroup itself, in the order in which they run.

    Args:
        names: A mount of bpffs; without it, no ``pin`` is read.

    Raises:
        OSError: CAP_NET_ADMIN is missing, or the directory isn't in cgroup v2.
    """
    found = attached_at(cgroup)
    pins = dict(_pins(names)) if found and names else {}
    return [Hook(s, p, calls.program_name(p), pins.get(p, ""), sole) for s, p, sole in found]


def _pins(names: Path) -> Iterator[tuple[int, str]]:
    """Yield the id and path of each pinned program among ``_PINS_MAX`` pins of a bpffs."""
    paths = (Path(folder, name) for folder, _, files in os.walk(names) for name in files)
    for path in islice(paths, _PINS_MAX):
        try:
            descriptor = calls.pinned(path)
        except OSError:
            # The program was removed after it was listed, or belongs to another user.
            continue
        try:
            kind = str(Path(f"/proc/self/fd/{descriptor}").readlink()).replace("_link", "-link")
            if kind == _LINK:
                yield calls.link_info(descriptor).program, str(path.relative_to(names))
            elif kind == _PROGRAM:
                yield calls.program_info(descriptor).id, str(path.relative_to(names))
        finally:
            os.close(descriptor)


def judge_hooks(hooks: Iterable[Hook], own: Collection[int] = ()) -> list[OtherHook]:
    """Return how other programs affect the proxy's hooks; programs that prevent hooks come first.

    Args:
        own: The ids of this proxy's programs. Programs pinned by any userspace-proxy are also
            skipped.
    """
    others: dict[int, list[Hook]] = {}
    for hook in hooks:
        if hook.program not in own and not hook.pin.startswith(f"{OWN_PINS}/"):
            others.setdefault(hook.program, []).append(hook)
    found = list(_judge(others.values()))
    # Merge programs that prevent hooks by the same effect into one finding.
    replacements = {one.what: one for one in reversed(found) if one.replaces}
    return [*replacements.values(), *(one for one in found if not one.replaces)]


def _judge(programs: Iterable[list[Hook]]) -> Iterator[OtherHook]:
    for hooks in programs:
        first = hooks[0]
        sections = ", ".join(hook.section.removeprefix("cgroup/") for hook in hooks)
        called = first.name or first.pin.rpartition("/")[2] or "a program"
        where = f"{called}, id {first.program}, at {sections}"
        if sole := next((hook.section for hook in hooks if hook.is_sole), ""):
            what = f"another program at {sole} admits no other (without BPF_F_ALLOW_MULTI)"
            yield OtherHook(what, where, "--socket-lb=off, or end what loads it", replaces=True)
        elif first.section == _SOCKOPS:
            what = "another program may keep the proxy from following connections"
            yield OtherHook(what, where, f"bpftool prog show id {first.program}")
        elif (replacement := _replacement(first)) is not None:
            name, setting = replacement
            what = f"{name} translates Services at connect()"
            yield OtherHook(what, where, f"--socket-lb=off, or {setting}", replaces=True)
        else:
            yield OtherHook(
                "another program may change what this node's programs dial",
                where,
                f"bpftool prog show id {first.program}; if it translates Services, --socket-lb=off",
            )


def _replacement(hook: Hook) -> tuple[str, str] | None:
    return next(
        (
            words
            for begins, words in _REPLACEMENTS.items()
            if hook.name.startswith(begins) or hook.pin.startswith(begins)
        ),
        None,
    )
