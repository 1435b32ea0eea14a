"""Whether hooks can be used as ``--socket-lb`` asks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from userspace_proxy.check.socket_lb import judge_hook_rights, look_at_hooks
from userspace_proxy.kernel.hook_rights import HookRights
from userspace_proxy.kernel.offers import LACKS_NOTHING
from userspace_proxy.steering.others.hooks import OtherHook

CGROUP = Path("/sys/fs/cgroup")
RIGHTS = HookRights(LACKS_NOTHING, 1 << 12 | 1 << 39, None, CGROUP, Path("/sys/fs/bpf"))
CILIUM = OtherHook("Cilium translates", "cil_sock4_conne, id 7", "--socket-lb=off", replaces=True)
UNKNOWN = OtherHook("another program", "mine, id 6", "bpftool prog show id 6")
MARKS = {"required": "error", "auto": "warning"}


def marks(wanted, rights=RIGHTS, others=(), taken="nftables", **more):
    found = judge_hook_rights(wanted, taken, rights, others, **more)
    return [(f.mark, f.what) for f in found]


def test_off_needs_nothing(tmp_path):
    assert marks("off") == []
    assert look_at_hooks("off", "nftables", LACKS_NOTHING, tmp_path, None) == []


@pytest.mark.parametrize("wanted", MARKS)
def test_where_all_is_there_the_folder_is_told(wanted):
    (found,) = judge_hook_rights(wanted, "nftables", RIGHTS, ())
    assert (found.mark, found.where) == ("ok", "/sys/fs/cgroup")


@pytest.mark.parametrize(("wanted", "mark"), MARKS.items())
def test_what_is_missing_is_an_error_only_if_hooks_are_required(wanted, mark):
    assert marks(wanted, replace(RIGHTS, names=None)) == [(mark, "no bpffs is mounted")]


@pytest.mark.parametrize(("wanted", "mark"), MARKS.items())
@pytest.mark.parametrize("taken", ["iptables", ""])
def test_another_steering_has_no_hooks(tmp_path, wanted, mark, taken):
    (found,) = look_at_hooks(wanted, taken, LACKS_NOTHING, tmp_path, None)
    assert found.mark == mark
    assert found.what.startswith(f"--socket-lb={wanted} has no effect: steering ")


@pytest.mark.parametrize(("wanted", "mark"), MARKS.items())
def test_another_translator_is_a_refusal_and_an_unknown_program_a_warning(wanted, mark):
    assert marks(wanted, others=[CILIUM, UNKNOWN]) == [
        (mark, "Cilium translates"),
        ("warning", "another program"),
    ]
    assert [mark for mark, _ in marks(wanted, others=[UNKNOWN])] == ["warning", "ok"]


def test_a_part_of_the_cgroups_is_a_warning():
    ((mark, what),) = marks("required", is_part=True)
    assert (mark, what.partition(":")[0]) == ("warning", "this isn't the root of cgroup v2")


def test_without_the_rights_nothing_that_is_attached_is_read(tmp_path):
    (found,) = look_at_hooks("required", "nftables", LACKS_NOTHING, tmp_path, None)
    assert found.mark == "error"
    assert found.hint
