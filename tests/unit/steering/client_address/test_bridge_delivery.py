from __future__ import annotations

import re
from contextlib import closing

import pytest

from userspace_proxy.steering.client_address.bridge_delivery import BridgeDelivery

ENTRY = "06:75:70:72:6f:78"


@pytest.fixture
def number(node):
    """The number of a bridge."""
    node.run("ip link add br0 type bridge; ip link set br0 up")
    return int(re.match(r"(\d+):", node.run("ip -o link show br0"))[1])


def test_the_table_exists_until_it_is_closed(node, number):
    with closing(BridgeDelivery("userspace-proxy/replies")) as delivery:
        assert not delivery.put_right()
        assert not delivery.put_right()
        assert delivery.add_to([number]) == {number}
        table = node.run("nft list table bridge userspace-proxy/replies")
        assert f"ether daddr {ENTRY} meta pkttype set host" in table
    assert node.run("nft list tables") == ""
