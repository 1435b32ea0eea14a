from __future__ import annotations

import pytest

from userspace_proxy.model import Frontend, Protocol, SocketAddress
from userspace_proxy.steering import (
    EndpointChoice,
    KernelTarget,
    SteeringFacts,
    Target,
    make_steering,
)
from userspace_proxy.steering.leftovers import Leftovers, remove_leftovers

WEB = Frontend("10.96.7.1", 80, Protocol.TCP)
TO_ENDPOINT = KernelTarget(36001, (EndpointChoice((SocketAddress("10.244.1.2", 80),)),))
IN_FORCE = "nft list tables; ip route show table local proto 117; iptables-legacy-save -t nat"


async def leave(steering: str, proxy_name: str = "", target: Target = 36001) -> None:
    facts = SteeringFacts(refuse_port=35999, proxy_name=proxy_name)
    left = make_steering(steering, facts)
    await left.apply({WEB: target})
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


async def test_the_kernel_path_of_a_run_that_died_before_its_first_ports_is_removed(node):
    await leave("nftables", target=TO_ENDPOINT)
    # It is written after the kernel path's.
    node.run("nft delete table inet userspace-proxy")
    assert "userspace-proxy/paths" in node.run(IN_FORCE)
    assert await remove_leftovers("local", "") == Leftovers(("nftables",), ())
    assert "userspace-proxy" not in node.run(IN_FORCE)
