from __future__ import annotations

from userspace_proxy.model import Frontend, Protocol
from userspace_proxy.steering import GUARD_TABLES, SteeringFacts
from userspace_proxy.steering.local import LocalSteering, is_present, remove_routes

WEB = Frontend("10.96.7.1", 80, Protocol.TCP)


async def test_leftovers_of_a_proxy_are_found_by_its_name(node):
    before = node.run("ip route show table all")
    for name in ("", "canary"):
        steering = LocalSteering(SteeringFacts(proxy_name=name))
        await steering.apply({WEB: 80})
        await steering.close()
        node.run("nft flush ruleset")
    assert [is_present(name) for name in ("", "canary", "blue")] == [True, True, False]
    remove_routes()
    assert node.run("ip route show table all") == before
    assert not is_present("")


async def test_a_guard_alone_is_found(node):
    node.run(f"nft add table inet {GUARD_TABLES.of('canary')}")
    assert [is_present(name) for name in ("", "canary")] == [False, True]
