"""Tests of which path the ports of a Service use, and why."""

import pytest

from userspace_proxy.causes.notes import kernel_path_unused, path_not_allowed
from userspace_proxy.model import (
    DEFAULT_HANDLING,
    Balance,
    DataPath,
    Handling,
    Hold,
    ProxyProtocol,
)
from userspace_proxy.policy.path import DEFAULT_PATH, choose_path, in_coarse_parts, in_parts

ASKED = Handling(path=DataPath.KERNEL)


def test_by_default_connections_use_the_userspace_path():
    assert choose_path(DEFAULT_HANDLING, DataPath.USERSPACE, "") == DEFAULT_PATH


@pytest.mark.parametrize(
    ("handling", "default", "path", "why"),
    [
        (ASKED, DataPath.USERSPACE, "kernel", "its annotation asks for it"),
        (DEFAULT_HANDLING, DataPath.KERNEL, "kernel", "--path=kernel is the default"),
        (
            Handling(path=DataPath.USERSPACE),
            DataPath.KERNEL,
            "userspace",
            "its annotation asks for it",
        ),
    ],
)
def test_the_path_annotation_takes_precedence_over_the_flag(handling, default, path, why):
    assert choose_path(handling, default, "") == (path, why, None)


@pytest.mark.parametrize(
    ("handling", "default", "why"),
    [
        pytest.param(
            Handling(path=DataPath.AUTO), DataPath.KERNEL, "its annotation asks for it", id="asked"
        ),
        pytest.param(DEFAULT_HANDLING, DataPath.AUTO, "--path=auto is the default", id="default"),
    ],
)
def test_path_auto_requires_probes_to_choose_the_path(handling, default, why):
    assert choose_path(handling, default, "") == (DataPath.AUTO, why, None)


@pytest.mark.parametrize(
    ("default", "why"),
    [
        pytest.param(DataPath.USERSPACE, "", id="userspace"),
        pytest.param(DataPath.KERNEL, "--path=kernel is the default", id="kernel"),
    ],
)
def test_a_disallowed_annotation_gets_a_note_and_has_no_effect(default, why):
    allowed = (DataPath.USERSPACE, DataPath.KERNEL)
    chosen = choose_path(Handling(path=DataPath.AUTO), default, "", allowed=allowed)
    assert (chosen.path, chosen.why) == (default, why)
    assert chosen.note == path_not_allowed("auto")
    assert choose_path(ASKED, default, "", allowed=allowed).path is DataPath.KERNEL
    assert choose_path(DEFAULT_HANDLING, DataPath.AUTO, "", allowed=()).note is None


def test_path_auto_with_session_affinity_uses_the_userspace_path():
    chosen = choose_path(Handling(path=DataPath.AUTO), DataPath.USERSPACE, "", has_affinity=True)
    why = "session affinity with path auto needs the proxy"
    assert chosen == (DataPath.USERSPACE, why, None)
    assert choose_path(ASKED, DataPath.USERSPACE, "", has_affinity=True).path is DataPath.KERNEL


@pytest.mark.parametrize(
    ("more", "what"),
    [
        pytest.param({"balance": Balance.LEAST_CONNECTIONS}, "balance least-connections", id="lc"),
        pytest.param({"hold": Hold(60.0)}, "hold", id="hold"),
        pytest.param({"max_connections": 100}, "max-connections", id="limit"),
        pytest.param({"proxy_protocol": ProxyProtocol.V2}, "proxy-protocol", id="proxy-protocol"),
        pytest.param({"slow_start_s": 30.0}, "slow-start", id="slow-start"),
        pytest.param({"removal_s": 30.0}, "on-endpoint-removal", id="removal"),
    ],
)
def test_a_setting_requiring_the_proxy_overrides_the_kernel_path_with_a_note(more, what):
    why = f"{what} needs the proxy"
    asked = choose_path(Handling(path=DataPath.KERNEL, **more), DataPath.USERSPACE, "")
    assert (asked.path, asked.why) == (DataPath.USERSPACE, why)
    assert asked.note == kernel_path_unused(why)
    assert choose_path(Handling(**more), DataPath.KERNEL, "") == (DataPath.USERSPACE, why, None)


@pytest.mark.parametrize("balance", [Balance.RANDOM, Balance.SOURCE_HASH])
def test_balancing_at_random_or_by_source_hash_permits_the_kernel_path(balance):
    chosen = choose_path(Handling(path=DataPath.KERNEL, balance=balance), DataPath.USERSPACE, "")
    assert chosen.path is DataPath.KERNEL


def test_path_auto_with_source_hash_uses_the_userspace_path():
    asked = Handling(path=DataPath.AUTO, balance=Balance.SOURCE_HASH)
    why = "balance source-hash with path auto needs the proxy"
    assert choose_path(asked, DataPath.USERSPACE, "") == (DataPath.USERSPACE, why, None)


def test_a_steering_mode_without_kernel_path_is_the_reason_for_userspace():
    chosen = choose_path(ASKED, DataPath.USERSPACE, "it needs --steering=nftables")
    assert (chosen.path, chosen.why) == (DataPath.USERSPACE, "it needs --steering=nftables")
    assert chosen.note is not None


def test_weights_use_the_kernel_path_if_few_slots_suffice():
    assert in_parts((200, 100)) == [2, 1]
    assert in_parts(()) == []
    assert choose_path(ASKED, DataPath.USERSPACE, "", weights=(255, 1)).path is DataPath.KERNEL
    chosen = choose_path(ASKED, DataPath.USERSPACE, "", weights=(256, 1))
    assert (chosen.path, chosen.why) == (
        DataPath.USERSPACE,
        "a choice by weights of 257 parts needs the proxy",
    )


@pytest.mark.parametrize(
    ("parts", "coarse"),
    [((1, 2), [1, 2]), ((1, 255), [1, 32]), ((100, 28), [25, 7]), ((0, 64), [0, 32]), ((), [])],
)
def test_coarse_weights_have_few_slots_and_omit_no_endpoint(parts, coarse):
    assert in_coarse_parts(parts) == coarse
