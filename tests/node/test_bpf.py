"""Loads programs into the kernel: connect() hooks for a cgroup of the test."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.node.bpf_hooks import DIALLED, Dialled, bpf_rights, own_cgroup
from userspace_proxy.kernel.bpf import calls
from userspace_proxy.kernel.bpf.objects import BpfObject, MapSpec, Program, read_object

pytestmark = [pytest.mark.kernel, pytest.mark.netns, pytest.mark.needs("connect hooks")]

FRONTEND = ("127.0.7.1", 80)
HASH = 1
NO_PREALLOC = 1
RETURN = RETURN_UNSET = struct.pack("=BBhi", 0x95, 0, 0, 0)
# A process in the cgroup dials, and prints its peer's address or the error.
DIAL = """
import socket, sys
cgroup, host, port = sys.argv[1:]
open(f"{cgroup}/cgroup.procs", "w").write("0")
try:
    print(socket.create_connection((host, int(port)), timeout=10).getpeername()[:2])
except OSError as exc:
    print(exc.strerror)
"""


@pytest.fixture(autouse=True)
def rights() -> Iterator[None]:
    with bpf_rights():
        yield


@pytest.fixture
def cgroup(tmp_path: Path) -> Iterator[Path]:
    with own_cgroup(tmp_path / "cgroup") as cgroup:
        yield cgroup


@pytest.fixture
def hooks(cgroup: Path) -> Iterator[Dialled]:
    hooks = Dialled(cgroup)
    yield hooks
    hooks.close()


@pytest.fixture
def web() -> Iterator[tuple[str, int]]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()


def open_descriptors() -> int:
    return len([*Path("/proc/self/fd").iterdir()])


def dial(cgroup: Path, address: tuple[str, int]) -> str:
    command = [sys.executable, "-c", DIAL, str(cgroup), *map(str, address)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_map_elements_are_set_singly_or_in_batches_and_removed() -> None:
    table = calls.create_map("table", MapSpec(HASH, 4, 4, 30_000))
    keys = struct.pack("=30000I", *range(30_000))
    calls.update_batch(table, keys, keys, 30_000)
    last = struct.pack("=I", 29_999)
    assert calls.lookup(table, last, 4) == last
    assert [calls.delete(table, last), calls.delete(table, last)] == [True, False]
    assert calls.lookup(table, last, 4) is None
    calls.update(table, last, bytes(4))
    assert calls.lookup(table, last, 4) == bytes(4)
    os.close(table)


def test_all_map_elements_are_read_and_absent_keys_do_not_prevent_a_removal() -> None:
    spec = MapSpec(HASH, 4, 8, 10_000)
    table = calls.create_map("table", spec)
    assert calls.elements(table, spec) == []
    keys, values = struct.pack("=10000I", *range(10_000)), struct.pack("=10000Q", *range(10_000))
    calls.update_batch(table, keys, values, 10_000)
    found = {struct.unpack("=IQ", key + value) for key, value in calls.elements(table, spec)}
    assert found == {(number, number) for number in range(10_000)}
    # The first key, the last key, and some in between are absent.
    absent = [10_000, 3, 3, 4, 10_001]
    calls.delete_batch(table, [struct.pack("=I", x) for x in (*absent, *range(5, 10_000), 10_002)])
    left = sorted(struct.unpack("=I", key) for key, _ in calls.elements(table, spec))
    assert left == [(0,), (1,), (2,)]
    os.close(table)


def test_a_map_reports_its_specification_and_memory() -> None:
    spec = MapSpec(HASH, 8, 16, 1000, NO_PREALLOC)
    table = calls.create_map("table", spec)
    assert calls.map_info(table) == spec
    assert 1000 <= calls.memory_of(table) < 10_000_000
    os.close(table)


def test_a_link_reports_its_program_and_cgroup_and_can_be_replaced(
    cgroup: Path, hooks: Dialled, web: tuple[str, int]
) -> None:
    section, link = "cgroup/connect4", hooks.links["cgroup/connect4"]
    place = os.open(cgroup, os.O_RDONLY)
    before = calls.link_info(link)
    assert before.cgroup == cgroup.stat().st_ino
    assert calls.attached(section, place)[1] == [before.program]
    assert calls.program_name(before.program) == "connect4"
    hooks.lead(FRONTEND, web)
    # The other program passes all dials unchanged: R0 = 1.
    other = calls.load_program(section, struct.pack("=BBhi", 0xB7, 0, 0, 1) + RETURN)
    calls.replace_program(link, other)
    info = calls.program_info(other)
    assert calls.attached(section, place)[1] == [info.id] != [before.program]
    assert calls.link_info(link).program == info.id
    assert (len(info.tag), info.name) == (8, "connect4")
    assert dial(cgroup, FRONTEND) == "Connection refused"
    os.close(other)
    os.close(place)


def test_a_rejected_program_is_reported_with_the_verifiers_reason() -> None:
    with pytest.raises(PermissionError, match=r"cgroup/connect4: R0 !read_ok"):
        calls.load_program("cgroup/connect4", RETURN_UNSET)


def test_a_rejected_program_closes_previously_loaded_programs(cgroup: Path) -> None:
    before = open_descriptors()
    Dialled(cgroup).close()
    parts = read_object(DIALLED.read_bytes())
    first, *_ = parts.programs
    maps = {name: calls.create_map(name, spec) for name, spec in parts.maps.items()}
    refused = BpfObject(parts.maps, [first, Program("sockops", RETURN_UNSET, [])])
    with pytest.raises(PermissionError, match="sockops: R0 !read_ok"):
        calls.load_object(refused, maps)
    for descriptor in maps.values():
        os.close(descriptor)
    assert open_descriptors() == before
