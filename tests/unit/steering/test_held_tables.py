from __future__ import annotations

import errno

import pytest

from userspace_proxy.kernel.nf_tables import list_tables, writer
from userspace_proxy.kernel.offers import KernelOffers
from userspace_proxy.steering.held_tables import ConntrackHold, Untracked


@pytest.mark.parametrize(
    ("make", "name", "rule"),
    [
        pytest.param(
            lambda: ConntrackHold("canary"),
            "userspace-proxy/held-canary",
            "ct state invalid",
            id="conntrack-hold",
        ),
        pytest.param(
            lambda: Untracked([10256, 10249]),
            "userspace-proxy/untracked",
            "tcp sport 10249 notrack",
            id="untracked",
        ),
    ],
)
async def test_a_held_table_can_be_changed_only_by_its_owner(node, make, name, rule):
    table = make()
    for _ in range(2):
        assert await table.hold() == ""
        assert await table.hold() == ""
        node.run("nft flush ruleset")
        text = node.run(f"nft list table inet {name}")
        assert "flags owner" in text
        assert rule in text
        await table.let_go()
        assert list_tables() == []
        await table.let_go()


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda kernel: ConntrackHold(kernel=kernel), id="conntrack-hold"),
        pytest.param(lambda kernel: Untracked([10256], kernel=kernel), id="untracked"),
    ],
)
async def test_without_table_owner_support_no_table_is_held(node, monkeypatch, make):
    monkeypatch.setattr(writer, "TABLE_OWNED", 1 << 31)
    table = make(KernelOffers({"table owner": errno.EINVAL}))
    assert await table.hold() == "this kernel lacks table owner (Linux 5.12)"
    assert list_tables() == []
    await table.let_go()
