from __future__ import annotations

import pytest

from userspace_proxy.model import Frontend, Protocol
from userspace_proxy.steering import SteeringFacts, make_steering
from userspace_proxy.steering.leftovers import Leftovers, remove_leftovers

WEB = Frontend("10.96.7.1", 80, Protocol.TCP)
IN_FORCE = "nft list tables; ip route show table local proto 117; iptables-legacy-save -t nat"


async def leave(steering: str, proxy_name: str = "") -> None:
    facts = SteeringFacts(refuse_port=35999, proxy_name=proxy_name)
    left = make_steering(steering, facts)
    await left.apply({WEB: 36001})
    await left.close()


async def test_on_a_clean_node_nothing_is_found(node):
    assert await remove_leftovers("nftables", "") == Leftovers((), ())
    assert "nat" not in node.run("cat /proc/net/ip_tables_names")


@pytest.mark.parametrize("steering", ["iptables", "nftables", "local"])
async def test_leftovers_of_other_steerings_are_removed(node, steering):
    await leave(steering)
    assert await remove_leftovers(steering, "") == Leftovers((), ())
    chosen = "local" if steering == "nftables" else "nftables"
    assert await remove_leftovers(chosen, "") == Leftovers((steering,), ())
    left = node.run(IN_FORCE)
    assert "userspace-proxy" not in left
    assert "UPROXY" not in left
    assert "10.96.7.1" not in left


async def test_leftovers_of_another_proxy_stay(node):
    await leave("nftables", "canary")
    assert await remove_leftovers("local", "") == Leftovers((), ())
    assert "userspace-proxy-canary" in node.run("nft list tables")
