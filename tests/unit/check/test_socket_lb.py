"""Whether hooks can be used as ``--socket-lb`` asks."""

from __future__ import annotations

import pytest

from userspace_proxy.check.socket_lb import judge_place, look_at_hooks
from userspace_proxy.kernel.offers import LACKS_NOTHING, KernelOffers
from userspace_proxy.steering.socket_lb import HookOptions, HookPlace
from userspace_proxy.steering.socket_lb.other_hooks import OtherHook

UNKNOWN = OtherHook("another program", "mine, id 6", "bpftool prog show id 6")
MARKS = {"required": "error", "auto": "warning"}


def wanted(value):
    return HookOptions(is_required=value == "required")


def test_off_needs_nothing():
    assert look_at_hooks(None, "nftables", LACKS_NOTHING) == []


@pytest.mark.parametrize(("value", "mark"), MARKS.items())
@pytest.mark.parametrize("taken", ["iptables", ""])
def test_another_steering_has_no_hooks(value, mark, taken):
    (found,) = look_at_hooks(wanted(value), taken, LACKS_NOTHING)
    assert found.mark == mark
    assert found.what.startswith(f"--socket-lb={value} has no effect: steering ")


@pytest.mark.parametrize(("value", "mark"), MARKS.items())
def test_why_a_start_finds_no_place_is_an_error_only_if_hooks_are_required(value, mark):
    (found,) = look_at_hooks(wanted(value), "nftables", KernelOffers({"connect hooks": 22}))
    assert found.mark == mark
    assert found.what.startswith("cannot translate connect(): this kernel lacks connect hooks")
    assert found.hint


def test_a_usable_place_is_reported_with_its_folder_and_other_programs(tmp_path):
    place = HookPlace(tmp_path, tmp_path, [UNKNOWN])
    assert [(f.mark, f.where) for f in judge_place(place)] == [
        ("warning", "mine, id 6"),
        ("ok", str(tmp_path)),
    ]


def test_a_part_of_the_cgroups_is_a_warning(tmp_path):
    (tmp_path / "cgroup.events").touch()
    (found,) = judge_place(HookPlace(tmp_path, tmp_path, []))
    assert (found.mark, found.what.partition(":")[0]) == (
        "warning",
        "this isn't the root of cgroup v2",
    )
