import resource
import subprocess
import sys
from pathlib import Path

import pytest

from userspace_proxy.kernel.memory_limits import AddressSpace, find_memory_limits

MIB = 1024 * 1024
NONE_IN_V1 = 9223372036854771712


class Machine:
    """A directory with fake files of /proc and /sys/fs/cgroup.

    Args:
        folder: An empty directory.
    """

    def __init__(self, folder):
        self.proc, self.sys = folder / "proc", folder / "sys"
        self.proc.mkdir()
        self.mounts = ["24 1 0:20 / /proc rw,nosuid shared:5 - proc proc rw"]

    def mount_v2(self, path, root="/"):
        """Mount cgroup v2, with the process in the cgroup of this path."""
        self._mount(root, "cgroup2 cgroup2 rw,nsdelegate", f"0::{path}")

    def mount_v1(self, path, root="/"):
        """Mount cgroup v1's memory controller, with the process in the cgroup of this path."""
        self._mount(root, "cgroup cgroup rw,memory", f"1:cpu,cpuacct:/elsewhere\n4:memory:{path}")

    def _mount(self, root, kind, path):
        self.mounts.append(f"30 24 0:26 {root} {self.sys} ro,relatime shared:9 - {kind}")
        (self.proc / "mountinfo").write_text("\n".join(self.mounts))
        (self.proc / "cgroup").write_text(f"{path}\n")

    def cgroup(self, path, **files):
        """Write the ``memory.`` files of one cgroup."""
        folder = self.sys / path
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (folder / f"memory.{name}").write_text(f"{text}\n")

    def limits(self):
        return [(limit.limit, limit.used()) for limit in find_memory_limits(self.proc)]


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


def test_used_memory_excludes_file_cache(machine):
    machine.mount_v2("/pod")
    stat = f"anon {90 * MIB}\ninactive_file {6 * MIB}\nactive_file {4 * MIB}\nsock 4096"
    machine.cgroup("pod", max=200 * MIB, current=110 * MIB, stat=stat)
    (limit,) = find_memory_limits(machine.proc)
    before = len(list(Path("/proc/self/fd").iterdir()))
    assert (limit.limit, limit.used(), limit.counts_sockets) == (200 * MIB, 100 * MIB, True)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_an_estimate_uses_the_file_cache_of_the_last_exact_reading(machine):
    machine.mount_v2("/")
    machine.cgroup("", max=200 * MIB, current=110 * MIB, stat=f"inactive_file {10 * MIB}")
    (limit,) = find_memory_limits(machine.proc)
    assert limit.estimate() == 110 * MIB
    limit.used()
    machine.cgroup("", current=120 * MIB, stat=f"inactive_file {15 * MIB}")
    assert limit.estimate() == 110 * MIB
    assert limit.used() == 105 * MIB
    machine.cgroup("", current=5 * MIB)
    assert limit.estimate() == 0


def test_cgroup_v1_usage_includes_child_groups_and_excludes_socket_memory(machine):
    machine.mount_v1("/pod")
    stat = f"inactive_file 1\ntotal_inactive_file {10 * MIB}\ntotal_active_file {5 * MIB}"
    machine.cgroup("pod", limit_in_bytes=200 * MIB, usage_in_bytes=115 * MIB, stat=stat)
    machine.cgroup("", limit_in_bytes=NONE_IN_V1, usage_in_bytes=900 * MIB, stat="")
    (limit,) = find_memory_limits(machine.proc)
    assert (limit.limit, limit.used(), limit.counts_sockets) == (200 * MIB, 100 * MIB, False)


@pytest.mark.parametrize(
    ("outer", "inner", "expected"),
    [
        pytest.param({"max": 300}, {"max": 200}, (200, 20), id="own-limit-is-lower"),
        pytest.param({"max": 200}, {"max": 300}, (200, 50), id="parents-limit-is-lower"),
        pytest.param({"max": 200}, {"max": 200}, (200, 50), id="equal-limits"),
        pytest.param({"max": "max"}, {"max": 300, "high": 250}, (250, 20), id="throttled-first"),
    ],
)
def test_the_lowest_memory_limit_of_all_ancestor_cgroups_applies(machine, outer, inner, expected):
    machine.mount_v2("/slice/service")
    machine.cgroup("slice", current=50, **outer)
    machine.cgroup("slice/service", current=20, **inner)
    assert machine.limits() == [expected]


def test_a_container_finds_its_cgroup_at_the_mount_point(machine):
    machine.mount_v1("/kubepods/pod1/abc", root="/kubepods/pod1/abc")
    machine.cgroup("", limit_in_bytes=200, usage_in_bytes=20)
    assert machine.limits() == [(200, 20)]


@pytest.mark.parametrize(
    "path",
    [
        pytest.param("/../../host", id="above-its-namespace"),
        pytest.param("/kubepods/pod1", id="path-of-the-host"),
    ],
)
def test_a_cgroup_path_of_another_namespace_is_ignored(machine, path):
    machine.mount_v2(path)
    machine.cgroup("", max=200, current=20)
    assert machine.limits() == [(200, 20)]


def test_an_unreadable_cgroup_path_is_ignored(machine):
    # A worker encounters such a path if the mount is below a directory that only root may enter.
    machine.mount_v2(f"/{'long' * 100}")
    machine.cgroup("", max=200, current=20)
    assert machine.limits() == [(200, 20)]


def test_an_unlimited_cgroup_yields_no_limit(machine):
    machine.mount_v2("/pod")
    machine.cgroup("pod", max="max", high="max", current=20)
    assert machine.limits() == []


def test_without_proc_no_memory_limits_are_found(tmp_path):
    assert find_memory_limits(tmp_path) == []


def test_memory_usage_reads_as_zero_once_the_cgroup_files_are_removed(machine):
    machine.mount_v2("/")
    machine.cgroup("", max=200, current=20)
    (limit,) = find_memory_limits(machine.proc)
    (machine.sys / "memory.current").unlink()
    assert limit.used() == limit.estimate() == 0


def test_the_limit_of_the_address_space_is_found(tmp_path):
    code = (
        "import resource; from pathlib import Path;"
        "from userspace_proxy.kernel.memory_limits import find_memory_limits;"
        f"resource.setrlimit(resource.RLIMIT_AS, ({900 * MIB}, {900 * MIB}));"
        f"(limit,) = find_memory_limits(Path({str(tmp_path)!r}));"
        "before = limit.used(); held = bytearray(64 << 20);"
        "print(limit.limit, limit.counts_sockets, limit.used() - before)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    limit, counts_sockets, grown = done.stdout.split()
    assert (int(limit), counts_sockets) == (900 * MIB, "False")
    assert 64 * MIB <= int(grown) < 66 * MIB


def test_the_estimate_of_address_space_usage_is_exact():
    limit = AddressSpace(900 * MIB)
    assert limit.estimate() == limit.used() > resource.getpagesize()
