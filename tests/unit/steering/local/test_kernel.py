from __future__ import annotations

from contextlib import closing

import pytest

from userspace_proxy.errors import SteeringConflict
from userspace_proxy.kernel.netlink.rtnetlink import LocalRoute
from userspace_proxy.model import Frontend, Protocol
from userspace_proxy.steering import GUARD_TABLES, SteeringFacts
from userspace_proxy.steering.local import LocalSteering, is_present, remove_routes
from userspace_proxy.steering.local.kernel import RoutingTables

TO_WEB = LocalRoute("10.96.7.1/32", metric=7)
TO_WEB_6 = LocalRoute("fd00:96::1/128", metric=7)


@pytest.fixture
def tables(node):
    with closing(RoutingTables()) as tables:
        yield tables


def test_local_routes_are_listed_as_they_were_added(node, tables):
    node.run("ip address add 10.1.0.1/24 dev lo")
    assert tables.change(added=[TO_WEB, TO_WEB_6]) == {}
    table = tables.local_table()
    assert table.ours == {TO_WEB, TO_WEB_6}
    assert {"10.1.0.1/32", "127.0.0.0/8", "::1/128"} <= table.others
    assert tables.sources() == ["10.1.0.1"]
    tables.change(removed=[TO_WEB, TO_WEB_6])
    assert tables.local_table().ours == set()


def test_removing_a_nonexistent_route_is_not_an_error(tables):
    assert tables.change(removed=[TO_WEB]) == {}


def test_a_conflicting_route_is_returned_with_its_cause_and_other_routes_are_added(node, tables):
    node.run("ip route add unreachable 10.96.7.1 table local proto static metric 7")
    other = LocalRoute("10.96.7.2/32", metric=7)
    refused = tables.change(added=[TO_WEB, other])
    assert {item: str(cause) for item, cause in refused.items()} == {
        TO_WEB: "cannot add local route 10.96.7.1/32: already routed by another program "
        "(ip route show table local 10.96.7.1/32 shows by which program)"
    }
    assert isinstance(refused[TO_WEB], SteeringConflict)
    assert tables.local_table().ours == {other}


def test_without_ipv6_the_cause_states_that_ipv6_is_disabled(node, tables):
    node.run("sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.lo.disable_ipv6=1")
    refused = tables.change(added=[TO_WEB, TO_WEB_6])
    assert refused.keys() == {TO_WEB_6}
    assert "IPv6 is switched off on this node (sysctl -w" in str(refused[TO_WEB_6])


def test_the_programs_own_changes_and_unrelated_routes_are_not_reported(node, tables):
    tables.changes()
    tables.change(added=[TO_WEB])
    node.run("ip link add v0 type veth; ip link set v0 up; ip route add 10.9.0.0/24 dev v0")
    changes = tables.changes()
    assert not changes.is_affected
    assert not any(ip.startswith("10.") for ip in changes.addresses)


def test_changes_of_pod_links_do_not_overflow_the_event_queue(node, tables):
    """Each change of a link causes an event of 2 KiB, and the queue holds 208 events (#52)."""
    tables.changes()
    node.run("ip link add v0 type veth")
    flips = "\n".join(f"link set v0 mtu {1400 + turn % 2}" for turn in range(500))
    node.run(f"ip -batch - <<END\n{flips}\nEND")
    assert not tables.changes().is_affected


@pytest.mark.parametrize(
    "command",
    [
        pytest.param("ip route flush table local proto 117", id="route"),
        pytest.param("ip link set lo down; ip link set lo up", id="loopback"),
    ],
)
def test_a_change_of_this_programs_routes_is_reported(node, tables, command):
    tables.change(added=[TO_WEB])
    tables.changes()
    node.run(command)
    assert tables.changes().is_affected


def test_a_new_address_of_the_node_is_reported(node, tables):
    tables.changes()
    node.run("ip address add 10.1.0.1/24 dev lo")
    assert "10.1.0.1" in tables.changes().addresses


WEB = Frontend("10.96.7.1", 80, Protocol.TCP)


async def test_leftover_routes_of_a_proxy_are_found_by_its_name(node):
    before = node.run("ip route list table all")
    for name in ("", "canary"):
        steering = LocalSteering(SteeringFacts(proxy_name=name))
        await steering.apply({WEB: 80})
        await steering.close()
        node.run("nft flush ruleset")
    assert [is_present(name) for name in ("", "canary", "blue")] == [True, True, False]
    remove_routes()
    assert node.run("ip route list table all") == before
    assert not is_present("")


async def test_a_leftover_guard_table_is_found(node):
    node.run(f"nft add table inet {GUARD_TABLES.of('canary')}")
    assert [is_present(name) for name in ("", "canary")] == [False, True]
