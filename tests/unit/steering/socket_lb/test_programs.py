"""The pin names of BPF objects; tests/node loads the objects."""

import contextlib
import os
from pathlib import Path

import pytest

from tests.netns import Net
from userspace_proxy.kernel.bpf.objects import MapSpec, read_object
from userspace_proxy.kernel.own_namespace import network_namespace
from userspace_proxy.steering import names
from userspace_proxy.steering.socket_lb import programs
from userspace_proxy.steering.socket_lb.programs import (
    find_bpffs,
    find_cgroup,
    folder_of,
    hooked_labels,
    map_pin,
    remove_hooks,
)
from userspace_proxy.steering.socket_lb.socket_maps import FIELDS

OBJECT = Path(programs.__file__).with_name("socket_lb.bpf.o")


@pytest.mark.parametrize(
    ("label", "folder"),
    [("", "_"), ("canary", "canary"), ("v1.2", "v1+2"), ("a-ver~1f", "a-ver~1f")],
)
def test_each_proxy_of_a_network_namespace_has_its_own_bpffs_directory(tmp_path, label, folder):
    here = tmp_path / "userspace-proxy" / str(network_namespace())
    assert folder_of(tmp_path, label) == here / folder


def test_maps_are_shared_only_with_equal_sizes_and_fields():
    ring, fields = MapSpec(27, 0, 0, 262144), FIELDS["events"]
    pins = {
        map_pin("events", ring, fields),
        map_pin("events", ring, tuple(fields)),
        map_pin("events", ring._replace(entries=4096), fields),
        # The kernel checks only the size of a pinned ring, so its fields are part of the name.
        map_pin("events", ring, [*fields[:-2], fields[-1], fields[-2]]),
        map_pin("events", ring, ["=13Q", *fields[1:]]),
    }
    assert len(pins) == 4
    assert all(pin.startswith("events-") for pin in pins)


def test_the_fields_of_each_map_read_by_the_control_process_are_listed():
    assert FIELDS.keys() == read_object(OBJECT.read_bytes()).maps.keys() - {"connections"}


def test_each_network_namespace_has_its_own_bpffs_directory(tmp_path):
    other = Net("other")
    with other:
        there = folder_of(tmp_path, "")
    assert there != folder_of(tmp_path, "")
    other.close()


def test_proxy_labels_are_derived_from_the_names_of_pin_directories(tmp_path):
    assert hooked_labels(tmp_path) == []
    for name in ("", "v1.2", "canary"):
        folder_of(tmp_path, names.proxy_label(name)).mkdir(parents=True)
    assert hooked_labels(tmp_path) == ["", "canary", "v1.2"]


def test_removing_hooks_spares_another_proxys_hooks(tmp_path):
    assert not remove_hooks("canary", tmp_path)
    for label in ("", "canary"):
        folder_of(tmp_path, label).mkdir(parents=True)
    folder_of(tmp_path, "canary").joinpath("frontends4-1f0c93a2").touch()
    assert remove_hooks("canary", tmp_path)
    assert hooked_labels(tmp_path) == [""]
    assert remove_hooks("", tmp_path)
    assert list(tmp_path.iterdir()) == []


@contextlib.contextmanager
def as_nobody():
    """Become a user without access to root's files, like most users of a sandbox."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(before)


def test_a_user_without_access_to_the_bpf_filesystem_finds_no_hooks(tmp_path):
    folder_of(tmp_path, "").mkdir(parents=True)
    # Other users can't enter /sys/fs/bpf either: systemd mounts it with mode 0700.
    tmp_path.chmod(0)
    try:
        with as_nobody():
            assert not remove_hooks("", tmp_path)
            assert hooked_labels(tmp_path) == []
    finally:
        tmp_path.chmod(0o700)


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


def test_in_a_container_the_nodes_cgroup_is_preferred_to_the_containers_cgroup(mounts):
    assert find_cgroup(mounts=mounts(CONTAINER)) == Path("/host/sys/fs/cgroup")
    assert find_bpffs(mounts(CONTAINER)) == Path("/host/sys/fs/b pf")


def test_the_default_mount_point_of_bpffs_is_preferred(mounts):
    other = "34 30 0:29 / /other rw - bpf bpf rw\n"
    assert find_bpffs(mounts(other + HYBRID)) == Path("/sys/fs/bpf")


def test_an_unmounted_filesystem_is_not_found(mounts):
    path = mounts("22 1 0:20 / /sys rw - sysfs sysfs rw\n")
    assert (find_cgroup(mounts=path), find_bpffs(path)) == (None, None)
    assert find_cgroup("/sys/fs/cgroup/shop", path) == Path("/sys/fs/cgroup/shop")
