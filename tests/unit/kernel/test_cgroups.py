from pathlib import Path

import pytest

from userspace_proxy.kernel.cgroups import find_bpffs, find_cgroup

HYBRID = """\
22 1 0:20 / /sys rw - sysfs sysfs rw
30 22 0:26 / /sys/fs/cgroup ro - tmpfs tmpfs ro
31 30 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate
32 30 0:28 / /sys/fs/cgroup/memory rw shared:9 master:1 - cgroup cgroup rw,memory
33 22 0:29 / /sys/fs/bpf rw - bpf bpf rw
"""
CONTAINER = """\
31 30 0:27 / /sys/fs/cgroup ro - cgroup2 cgroup rw
32 30 0:27 /../../.. /host/sys/fs/cgroup ro - cgroup2 cgroup rw
33 30 0:27 /below /mnt/below ro - cgroup2 cgroup rw
34 30 0:29 / /host/sys/fs/b\\040pf rw - bpf bpf rw
"""


@pytest.fixture
def mounts(tmp_path):
    def write(text):
        path = tmp_path / "mountinfo"
        path.write_text(text)
        return path

    return write


def test_cgroup_v2_is_found_beside_version_1(mounts):
    assert find_cgroup(mounts=mounts(HYBRID)) == Path("/sys/fs/cgroup/unified")
    assert find_bpffs(mounts(HYBRID)) == Path("/sys/fs/bpf")


def test_in_a_container_the_nodes_cgroup_goes_before_its_own(mounts):
    assert find_cgroup(mounts=mounts(CONTAINER)) == Path("/host/sys/fs/cgroup")
    assert find_bpffs(mounts(CONTAINER)) == Path("/host/sys/fs/b pf")


def test_the_usual_place_of_bpffs_goes_first(mounts):
    other = "34 30 0:29 / /other rw - bpf bpf rw\n"
    assert find_bpffs(mounts(other + HYBRID)) == Path("/sys/fs/bpf")


def test_what_is_not_mounted_is_none(mounts):
    path = mounts("22 1 0:20 / /sys rw - sysfs sysfs rw\n")
    assert (find_cgroup(mounts=path), find_bpffs(path)) == (None, None)
    assert find_cgroup("/sys/fs/cgroup/shop", path) == Path("/sys/fs/cgroup/shop")
