"""Clean-up: the state that it removes, the state that it keeps, and when it is refused."""

import asyncio
import logging

import pytest

from userspace_proxy.agent.cleanup import cleanup
from userspace_proxy.agent.lock import NodeLock
from userspace_proxy.config import Settings
from userspace_proxy.errors import LockHeld
from userspace_proxy.kernel.nf_tables import Ruleset, TableWriter, list_tables
from userspace_proxy.model import Frontend, Protocol
from userspace_proxy.steering import ReplyRouting, SteeringFacts, make_steering

WEB = Frontend("10.96.0.10", 80, Protocol.TCP)
CANARY = Settings(service_proxy_name="canary")


def leave_behind(steering, name="", target=17000):
    """Steer one frontend and exit without a clean-up, as after a crash."""

    async def main():
        facts = SteeringFacts(refuse_port=29999, proxy_ports=(17000, 29999), proxy_name=name)
        left = make_steering(steering, facts)
        await left.start()
        await left.apply({WEB: target})
        await left.close()

    asyncio.run(main())


def leave_reply_routing():
    async def main():
        routing = ReplyRouting()
        assert await routing.start() == ""
        await routing.close()

    asyncio.run(main())


def routes_and_rules(node):
    return node.run("ip rule; ip route list table all; iptables-legacy-save")


@pytest.mark.parametrize("steering", ["nftables", "local", "iptables"])
def test_cleanup_removes_and_logs_the_state_left_by_a_crash(node, steering, caplog):
    caplog.set_level(logging.INFO, "userspace_proxy.agent")
    # Listing a built-in table creates it.
    before = routes_and_rules(node), list_tables()
    leave_behind(steering)
    leave_reply_routing()
    assert (routes_and_rules(node), list_tables()) != before
    assert cleanup(Settings()) == 0
    parts = {"reply routing", f"{steering} steering"}
    assert {*caplog.messages} == {f"cleaned up leftover {part}" for part in parts}
    assert "10.96.0.10" not in routes_and_rules(node)
    assert "UPROXY" not in routes_and_rules(node)
    assert "11800" not in routes_and_rules(node)
    assert list_tables() == before[1]
    caplog.clear()
    assert cleanup(Settings()) == 0
    assert caplog.messages == ["nothing to clean up"]


def test_cleanup_keeps_tables_and_routes_of_other_programs(node):
    table = TableWriter("other")
    table.create()
    with Ruleset() as ruleset:
        ruleset.commit(table.messages)
    node.run("ip route add local 10.3.0.0/24 dev lo")
    leave_behind("nftables")
    assert cleanup(Settings()) == 0
    assert list_tables() == ["other"]
    assert "10.3.0.0/24" in routes_and_rules(node)


def test_cleanup_with_a_name_removes_only_that_proxys_state(node):
    leave_behind("nftables")
    leave_behind("nftables", "canary")
    assert cleanup(CANARY) == 0
    assert list_tables() == ["userspace-proxy"]


def test_cleanup_of_a_proxy_or_of_all_proxies_is_rejected_while_it_runs(node):
    leave_behind("nftables")
    leave_behind("nftables", "canary")
    leave_behind("local", "edge")
    before = list_tables()
    lock = NodeLock("canary")
    lock.take()
    try:
        for settings in (Settings(), CANARY):
            with pytest.raises(LockHeld):
                cleanup(settings)
    finally:
        lock.release()
    assert list_tables() == before
    assert cleanup(Settings()) == 0
    assert list_tables() == []
