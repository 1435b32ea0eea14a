from __future__ import annotations

import errno
import re

import pytest

from userspace_proxy.errors import SteeringError
from userspace_proxy.kernel.nf_tables import expressions as x
from userspace_proxy.kernel.offers import KernelOffers
from userspace_proxy.steering import REPLY_TABLES, ReplyRouting
from userspace_proxy.steering.client_address.reply_routing import BridgeDelivery

SHOW = "nft list ruleset; ip rule; ip -6 rule"


@pytest.fixture
async def replies(node):
    replies = ReplyRouting()
    assert await replies.start() == ""
    yield replies
    await replies.close()


async def test_a_missing_kernel_feature_prevents_reply_routing_and_is_the_reason(node, monkeypatch):
    monkeypatch.setattr(x, "tproxy", lambda _port: x.expression("no_such_expression"))
    replies = ReplyRouting(offers=KernelOffers({"tproxy": errno.ENOENT}))
    assert await replies.start() == "this kernel lacks tproxy (modprobe nft_tproxy)"
    await replies.close()


async def test_without_bridge_tables_reply_routing_lacks_bridge_delivery(node, monkeypatch):
    node.run("ip link add br0 type bridge; ip link set br0 up")
    number = int(node.run("ip -o link show br0").partition(":")[0])
    monkeypatch.setattr(x, "ETHER_DADDR", x.Field("no_such_expression", 6, "big", b""))
    replies = ReplyRouting(offers=KernelOffers({"bridge tables": errno.EAFNOSUPPORT}))
    assert await replies.start([number]) == ""
    assert replies.without_bridges == "this kernel lacks bridge tables (CONFIG_NF_TABLES_BRIDGE)"
    assert replies.bridges == frozenset()
    await replies.close()


async def test_reply_routing_can_be_cleaned_up_before_it_is_started(node):
    replies = ReplyRouting()
    await replies.clean_up()
    await replies.close()


async def test_reply_routes_stay_until_the_last_proxy_is_cleaned_up(node, replies):
    other = ReplyRouting("canary")
    assert await other.start() == ""
    assert REPLY_TABLES.labels_here() == ["", "canary"]
    await replies.clean_up()
    assert "lookup 11800" in node.run("ip rule")
    await other.clean_up()
    assert "lookup 11800" not in node.run("ip rule")
    await other.close()


async def test_reply_routing_changed_by_another_program_is_repaired(node, replies):
    before = node.run(SHOW)
    node.run("ip rule del pref 119; nft flush ruleset")
    assert [await replies.repair(), await replies.repair()] == [1, 0]
    assert node.run(SHOW) == before


def refuse(*_):
    raise SteeringError("no memory")


async def test_bridge_delivery_covers_the_bridges_of_the_last_repair(node, replies, monkeypatch):
    assert (replies.bridges, replies.without_bridges) == (frozenset(), "")
    node.run("ip link add br0 type bridge; ip link set br0 up")
    number = int(node.run("ip -o link show br0").partition(":")[0])
    with monkeypatch.context() as refused:
        refused.setattr(BridgeDelivery, "add_to", refuse)
        await replies.repair([number])
        assert (replies.bridges, replies.without_bridges) == (frozenset(), "no memory")
    await replies.repair([number, 9999])
    assert replies.without_bridges == ""
    assert replies.bridges == {number}
    assert "table bridge userspace-proxy/replies" in node.run("nft list tables")
    node.run("ip link add uplink type bridge; ip link set uplink up")
    rules = node.run("nft list chain inet userspace-proxy/replies divert")
    assert 'iif "br0" ether daddr set 06:75:70:72:6f:78' in rules
    assert "06:75:70:72:6f:78" in node.run("bridge fdb show br br0")
    assert rules.count("iif") == 1
    assert [await replies.repair([number]), await replies.repair()] == [0, 0]
    assert "iif" not in node.run("nft list chain inet userspace-proxy/replies divert")
    await replies.repair([number])
    await replies.clean_up()
    assert "06:75:70:72:6f:78" not in node.run("bridge fdb show br br0")
    await replies.repair()
    assert "iif" not in node.run("nft list chain inet userspace-proxy/replies divert")


@pytest.fixture
def number(node):
    """Create a bridge; return its interface index."""
    node.run("ip link add br0 type bridge; ip link set br0 up")
    return int(re.match(r"(\d+):", node.run("ip -o link show br0"))[1])
