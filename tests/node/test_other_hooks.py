"""Detects other programs that are attached to a test's cgroup, as a proxy in a pod does."""

from __future__ import annotations

import contextlib
import os
import re
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.descriptors import open_descriptors
from tests.node.bpf_hooks import mounted, own_cgroup
from tests.node.test_bpf import rights as rights
from userspace_proxy.check.offers import look_at_hooks
from userspace_proxy.kernel.bpf import calls
from userspace_proxy.kernel.bpf.objects import MapSpec
from userspace_proxy.kernel.offers import FOR_SOCKET_LB, read_kernel_offers
from userspace_proxy.steering.socket_lb import HookOptions
from userspace_proxy.steering.socket_lb.other_hooks import Hook, judge_hooks, read_hooks

pytestmark = [pytest.mark.kernel, pytest.mark.netns, pytest.mark.needs("connect hooks")]

CONNECT4, SOCKOPS = "cgroup/connect4", "sockops"
# BPF: r0 = 1; exit.
ALLOW = struct.pack("=BBhiBBhi", 0xB7, 0, 0, 1, 0x95, 0, 0, 0)
ARRAY = 2
CILIUM = "cilium/socketlb/links/cgroup/cil_sock4_connect"
# The chart's relevant capabilities.
AS_IN_A_POD = [
    *("setpriv", "--bounding-set=-all,+bpf,+net_admin", "--inh-caps=-all"),
    *(sys.executable, "-c"),
]
READ = """
import sys
from pathlib import Path
from userspace_proxy.kernel.bpf.objects import MapSpec
from userspace_proxy.steering.socket_lb.other_hooks import read_hooks
for hook in read_hooks(Path(sys.argv[1]), Path(sys.argv[2])):
    print(hook.section, repr(hook.name), hook.pin)
"""


@pytest.fixture
def cgroup(tmp_path: Path) -> Iterator[Path]:
    with own_cgroup(tmp_path / "cgroup") as cgroup:
        yield cgroup


@pytest.fixture
def names(tmp_path: Path) -> Iterator[Path]:
    with mounted(tmp_path / "names", "bpf") as root:
        # Pins here are removed with the mount.
        yield root


@pytest.fixture
def attach(cgroup: Path) -> Iterator[Callable[[str], int]]:
    """Yield a function that attaches a program until the test's end, and returns its link."""
    with contextlib.ExitStack() as stack:

        def one(section: str) -> int:
            folder = os.open(cgroup, os.O_RDONLY)
            program = calls.load_program(section, ALLOW)
            link = calls.attach(section, program, folder)
            os.close(folder)
            os.close(program)
            stack.callback(os.close, link)
            return link

        yield one


def test_programs_are_read_with_their_names_and_pins(
    attach: Callable[[str], int], cgroup: Path, names: Path
) -> None:
    assert read_hooks(cgroup, names) == []
    first, second = attach(CONNECT4), attach(SOCKOPS)
    (names / CILIUM).parent.mkdir(parents=True)
    calls.pin(first, names / CILIUM)
    before = open_descriptors()
    assert read_hooks(cgroup, names) == [
        Hook(CONNECT4, calls.link_info(first).program, "connect4", CILIUM),
        Hook(SOCKOPS, calls.link_info(second).program, "sockops", ""),
    ]
    assert open_descriptors() == before


def test_pins_identify_a_programs_owner_with_a_pods_permissions(
    attach: Callable[[str], int], cgroup: Path, names: Path
) -> None:
    (names / CILIUM).parent.mkdir(parents=True)
    calls.pin(attach(CONNECT4), names / CILIUM)
    attach(SOCKOPS)
    said = subprocess.run(
        [*AS_IN_A_POD, READ, cgroup, names], capture_output=True, text=True, check=True
    ).stdout
    assert said.splitlines() == [f"{CONNECT4} '' {CILIUM}", f"{SOCKOPS} '' "]


def test_the_proxys_own_program_is_recognized_by_id_or_pin(
    attach: Callable[[str], int], cgroup: Path, names: Path
) -> None:
    link = attach(CONNECT4)
    program = calls.link_info(link).program
    hooks = read_hooks(cgroup, names)
    assert judge_hooks(hooks)
    assert judge_hooks(hooks, own={program}) == []
    pin = names / "userspace-proxy" / "canary" / "connect4"
    pin.parent.mkdir(parents=True)
    calls.pin(link, pin)
    assert judge_hooks(read_hooks(cgroup, names)) == []


def test_check_rejects_socket_lb_beside_another_translator(
    attach: Callable[[str], int], cgroup: Path, names: Path
) -> None:
    def marks() -> list[tuple[str, str]]:
        kernel = read_kernel_offers(FOR_SOCKET_LB)
        wanted = HookOptions(is_required=True, cgroup=str(cgroup))
        found = look_at_hooks(wanted, "nftables", kernel, names)
        whats = [f.what.removeprefix("cannot translate connect(): ") for f in found]
        return [
            (f.mark, re.split(r": | \(c", what)[0]) for f, what in zip(found, whats, strict=True)
        ]

    part = ("warning", "this isn't the root of cgroup v2")
    assert marks() == [part]
    link = attach(CONNECT4)
    assert marks() == [
        ("warning", "another program may change what this node's programs dial"),
        part,
    ]
    (names / CILIUM).parent.mkdir(parents=True)
    calls.pin(link, names / CILIUM)
    assert marks() == [("error", "Cilium translates Services at connect()")]


def test_the_pin_of_a_program_is_found_beside_a_pinned_map(cgroup: Path, names: Path) -> None:
    with contextlib.ExitStack() as stack:

        def held(descriptor: int) -> int:
            stack.callback(os.close, descriptor)
            return descriptor

        program = held(calls.load_program(CONNECT4, ALLOW))
        held(calls.attach(CONNECT4, program, held(os.open(cgroup, os.O_RDONLY))))
        calls.pin(held(calls.create_map("table", MapSpec(ARRAY, 4, 8, 1))), names / "table")
        calls.pin(program, names / "program")
        (hook,) = read_hooks(cgroup, names)
    assert hook.pin == "program"
