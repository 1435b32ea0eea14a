"""Judging hooks of other programs; tests/node/test_other_hooks.py reads a real cgroup's hooks."""

from __future__ import annotations

from pathlib import Path

import pytest

from userspace_proxy.steering.socket_lb.other_hooks import Hook, OtherHook, judge_hooks, read_hooks

CONNECT4, CONNECT6, SOCKOPS = "cgroup/connect4", "cgroup/connect6", "sockops"


def test_programs_of_other_userspace_proxies_are_not_reported() -> None:
    own = Hook(CONNECT4, 7, "connect4", "")
    of_another_proxy = Hook(CONNECT4, 8, "connect4", "userspace-proxy/canary/connect4")
    assert judge_hooks([own, of_another_proxy], own={7}) == []


@pytest.mark.parametrize(
    ("name", "pin", "whose"),
    [
        pytest.param("cil_sock4_conne", "", "Cilium", id="cilium"),
        pytest.param("sock4_connect", "", "Cilium", id="cilium-before-1.13"),
        # In a pod, reading names requires CAP_SYS_ADMIN.
        pytest.param(
            "", "cilium/socketlb/links/cgroup/cil_sock4_connect", "Cilium", id="cilium-by-pin"
        ),
        pytest.param("calico_connect_", "", "Calico", id="calico"),
        pytest.param("", "calico_connect4/calico_connect_v4", "Calico", id="calico-by-pin"),
    ],
)
def test_a_kube_proxy_replacement_is_reported_with_its_setting(
    name: str, pin: str, whose: str
) -> None:
    (found,) = judge_hooks([Hook(CONNECT4, 7, name, pin)])
    assert found.replaces
    assert found.what == f"{whose} translates Services at connect()"
    assert found.hint.startswith("--socket-lb=off, or ")
    assert whose in found.hint


def test_a_kube_proxy_replacement_with_several_programs_is_one_finding() -> None:
    unknown = Hook(CONNECT4, 6, "mine", "")
    cilium = [Hook(CONNECT4, 7, "cil_sock4_conne", ""), Hook(CONNECT6, 8, "cil_sock6_conne", "")]
    found = judge_hooks([unknown, *cilium])
    assert [(one.where, one.replaces) for one in found] == [
        ("cil_sock4_conne, id 7, at connect4", True),
        ("mine, id 6, at connect4", False),
    ]


def test_an_unknown_program_is_reported_once_with_all_its_hooks() -> None:
    found = judge_hooks([Hook(CONNECT4, 6, "", "other/dial"), Hook(CONNECT6, 6, "", "other/dial")])
    assert found == [
        OtherHook(
            "another program may change what this node's programs dial",
            "dial, id 6, at connect4, connect6",
            "bpftool prog show id 6; if it translates Services, --socket-lb=off",
        )
    ]


def test_a_foreign_sockops_program_is_reported_because_it_may_hide_connections() -> None:
    (found,) = judge_hooks([Hook(SOCKOPS, 6, "", "")])
    assert (found.what, found.where, found.replaces) == (
        "another program may keep the proxy from following connections",
        "a program, id 6, at sockops",
        False,
    )


def test_a_directory_outside_cgroup_v2_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"Bad file descriptor|Operation not permitted"):
        read_hooks(tmp_path, None)


def test_a_nonexistent_directory_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_hooks(tmp_path / "gone", None)
