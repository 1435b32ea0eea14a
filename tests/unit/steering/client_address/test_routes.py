from __future__ import annotations

from contextlib import closing

import pytest

from userspace_proxy.steering.client_address.routes import ReplyRoutes

SHOW = "ip rule; ip -6 rule; ip route show table 11800; ip -6 route show table 11800"


@pytest.fixture
def routes(node):
    with closing(ReplyRoutes()) as routes:
        yield routes


def test_reply_rules_and_routes_of_both_families_are_added_once(node, routes):
    assert [routes.put_right(), routes.put_right()] == [8, 0]
    assert "118:\tfrom all fwmark 0x1000/0x1000 iif lo goto 120 proto 118" in node.run("ip rule")
    assert "119:\tfrom all fwmark 0x1000/0x1000 lookup 11800 proto 118" in node.run("ip -6 rule")
    assert node.run("ip route show table 11800").startswith("local default dev lo proto 118")


def test_missing_reply_rules_and_routes_are_added(node, routes):
    routes.put_right()
    before = node.run(SHOW)
    node.run("ip rule del pref 118; ip -6 route flush table 11800")
    assert routes.put_right() == 2
    assert node.run(SHOW) == before


def test_removing_the_proxys_rules_keeps_rules_of_other_programs(node, routes):
    node.run("ip rule add fwmark 0x1 lookup 11800 pref 50")
    before = node.run("ip rule; ip -6 rule")
    routes.put_right()
    routes.remove()
    routes.remove()
    assert node.run("ip rule; ip -6 rule") == before


def test_without_ipv6_the_ipv4_reply_routes_are_added(node, routes):
    node.run("sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.lo.disable_ipv6=1")
    assert routes.put_right() == 4
    assert "rejects IPv6 routes" in routes.without_ipv6
    assert "11800" not in node.run("ip -6 rule")
    node.run("sysctl -qw net.ipv6.conf.all.disable_ipv6=0 net.ipv6.conf.lo.disable_ipv6=0")
    assert (routes.put_right(), routes.without_ipv6) == (4, "")
