"""The obstacles to hooking connect(), in the order in which a process meets them."""

from __future__ import annotations

import errno
import os
import resource
from dataclasses import replace
from importlib import resources
from pathlib import Path

import pytest

from userspace_proxy.kernel.bpf.objects import read_object
from userspace_proxy.kernel.offers import LACKS_NOTHING, KernelOffers
from userspace_proxy.steering import socket_lb
from userspace_proxy.steering.socket_lb.hook_rights import LOCKED_BYTES, HookRights, read_rights

NET_ADMIN, SYS_ADMIN, BPF = 1 << 12, 1 << 21, 1 << 39
CGROUP, NAMES = Path("/host/sys/fs/cgroup"), Path("/host/sys/fs/bpf")
ALL = HookRights(LACKS_NOTHING, NET_ADMIN | BPF, None, CGROUP, NAMES)
LACKS = KernelOffers({"connect hooks": errno.EINVAL})
FORBIDS = KernelOffers(untried=frozenset({"connect hooks"}))


@pytest.mark.parametrize(
    "rights",
    [
        pytest.param(ALL, id="as-in-the-chart"),
        pytest.param(replace(ALL, capabilities=NET_ADMIN | SYS_ADMIN), id="before-5.8"),
        pytest.param(replace(ALL, locked_max=LOCKED_BYTES), id="enough-locked-memory"),
    ],
)
def test_with_sufficient_rights_no_right_is_reported_as_missing(rights: HookRights) -> None:
    assert rights.lack() is None


@pytest.mark.parametrize(
    ("rights", "what"),
    [
        (
            replace(ALL, kernel=LACKS),
            "this kernel lacks connect hooks (CONFIG_BPF_SYSCALL, CONFIG_CGROUP_BPF)",
        ),
        (
            replace(ALL, capabilities=0, kernel=FORBIDS),
            "CAP_BPF and CAP_NET_ADMIN missing: connect() can't be hooked",
        ),
        (replace(ALL, capabilities=BPF), "CAP_NET_ADMIN missing: connect() can't be hooked"),
        (
            replace(ALL, kernel=FORBIDS),
            "bpf(2) is forbidden, in spite of CAP_BPF: by a seccomp profile, or in a user "
            "namespace",
        ),
        (
            replace(ALL, locked_max=65536),
            "this kernel counts maps as locked memory, of which 64 KiB are allowed",
        ),
        (
            replace(ALL, locked_max=0),
            "this kernel counts maps as locked memory, of which 0 KiB are allowed",
        ),
        (replace(ALL, cgroup=None, names=None), "no folder of cgroup v2 is mounted"),
        (replace(ALL, names=None), "no bpffs is mounted"),
        (replace(ALL, is_read_only=True), "/host/sys/fs/bpf is mounted read-only"),
    ],
)
def test_the_first_missing_right_is_reported_with_a_remedy(rights: HookRights, what: str) -> None:
    lack = rights.lack()
    assert lack is not None
    assert lack.what == what
    assert lack.hint


def test_the_maps_of_the_bpf_programs_fit_into_the_requested_locked_memory() -> None:
    maps = read_object((resources.files(socket_lb) / "socket_lb.bpf.o").read_bytes()).maps.values()
    # Hashes in Linux 5.10 use 48 more bytes per element, and 16 per bucket.
    # Source: htab_map_alloc().
    elements = sum((48 + m.key_bytes + m.value_bytes) * m.entries for m in maps)
    buckets = sum(16 << (m.entries - 1).bit_length() for m in maps if m.entries)
    assert 64 << 20 < elements + buckets < LOCKED_BYTES


def test_reading_the_rights_of_a_process_leaves_its_limits_unchanged(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    rights = read_rights(LACKS_NOTHING, None, tmp_path)
    assert resource.getrlimit(resource.RLIMIT_MEMLOCK) == before
    assert rights.is_read_only == bool(os.statvfs(tmp_path).f_flag & os.ST_RDONLY)
