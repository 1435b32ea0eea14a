from __future__ import annotations

import pytest

from userspace_proxy.kernel.netlink.rtnetlink import LocalRoute
from userspace_proxy.model import Frontend, IPFamily, Protocol
from userspace_proxy.steering.local.desired import REFUSED, DesiredState
from userspace_proxy.steering.local.rule_guard import (
    RuleGuard,
    address_rule,
    frontend_rule,
    is_proxys_table,
    removal_order,
    table_number,
)
from userspace_proxy.steering.names import owner_number

from .routing import MemoryTables, shown

WEB = Frontend("10.96.7.1", 80, Protocol.TCP)
CART = Frontend("10.96.7.2", 80, Protocol.TCP)
WEB_6 = Frontend("fd00:96::1", 80, Protocol.TCP)
LAST = Frontend("10.96.7.1", 65535, Protocol.TCP)
TABLE = table_number(0)
DEFAULT = LocalRoute("0.0.0.0/0", "10.1.0.1", table=TABLE)


@pytest.fixture
def tables():
    return MemoryTables()


@pytest.fixture
def guard(tables):
    return RuleGuard(tables, 0)


@pytest.fixture
def desired():
    desired = DesiredState()
    desired.sources[IPFamily.IPV4] = "10.1.0.1"
    return desired


def change(guard, desired, touched):
    guard.change(desired.change(touched), desired)


def test_each_proxy_has_its_own_table():
    numbers = {table_number(owner_number(name)) for name in ("", "canary", "blue")}
    assert len(numbers) == 3
    assert all(map(is_proxys_table, numbers))
    assert not is_proxys_table(254)


def test_an_address_is_guarded_before_a_frontend_there_is_admitted(guard, desired, tables):
    change(guard, desired, {WEB: 80, CART: REFUSED})
    assert tables.log == [
        "+ local 0.0.0.0/0 src 10.1.0.1 metric 0",
        "+ 6: to 10.96.7.1 prohibit",
        "+ 6: to 10.96.7.2 prohibit",
        "+ 5: to 10.96.7.1 ipproto 6 dport 80 lookup",
    ]


def test_a_frontend_is_no_longer_admitted_before_its_address_loses_its_guard(
    guard, desired, tables
):
    change(guard, desired, {WEB: 80})
    tables.log.clear()
    change(guard, desired, {WEB: None})
    assert tables.log == [
        "- 5: to 10.96.7.1 ipproto 6 dport 80 lookup",
        "- 6: to 10.96.7.1 prohibit",
    ]


def test_differences_are_counted_and_corrected(guard, desired, tables):
    desired.change({WEB: 80})
    assert guard.put_right(desired) == 3
    tables.items.discard(frontend_rule(WEB, TABLE))
    tables.items.add(address_rule(CART.ip, TABLE))
    other = frontend_rule(CART, table_number(owner_number("canary")))
    tables.items.add(other)
    assert guard.put_right(desired) == 2
    assert guard.put_right(desired) == 0
    assert tables.items == {
        DEFAULT,
        address_rule(WEB.ip, TABLE),
        frontend_rule(WEB, TABLE),
        other,
    }


def test_a_new_source_address_replaces_the_route(guard, desired, tables):
    change(guard, desired, {WEB: 80})
    desired.sources[IPFamily.IPV4] = "10.5.0.7"
    assert guard.put_right(desired) == 1
    assert tables.routes(TABLE)[0][0].source == "10.5.0.7"


def test_a_refused_route_affects_only_its_family(guard, desired, tables):
    tables.refused.add(LocalRoute("::/0", table=TABLE))
    change(guard, desired, {WEB: 80, WEB_6: 80})
    assert desired.refused.keys() == {"fd00:96::1/128"}
    assert frontend_rule(WEB, TABLE) in tables.items
    assert guard.put_right(desired) == 0
    tables.refused.clear()
    guard.put_right(desired)
    assert desired.refused == {}


def test_a_refused_rule_affects_only_its_address(guard, desired, tables):
    tables.refused.add(address_rule(CART.ip, TABLE))
    change(guard, desired, {WEB: 80, CART: 80})
    assert desired.refused.keys() == {"10.96.7.2/32"}
    change(guard, desired, {CART: None})
    assert desired.refused == {}


def test_a_frontend_is_as_desired_only_if_all_its_rules_are_in_force(guard, desired, tables):
    change(guard, desired, {WEB: 80, CART: REFUSED})
    loopback = Frontend("127.0.0.1", 80, Protocol.TCP)
    frontends = (WEB, CART, loopback)
    assert all(map(guard.look(desired), frontends))
    tables.items.discard(frontend_rule(WEB, TABLE))
    tables.items.add(frontend_rule(CART, TABLE))
    assert list(map(guard.look(desired), frontends)) == [False, False, True]
    tables.items.discard(DEFAULT)
    assert list(map(guard.look(desired), frontends)) == [False, False, True]


def test_a_port_that_no_rule_can_contain_has_no_rule(guard, desired, tables):
    change(guard, desired, {LAST: 80})
    assert [shown(rule) for rule in tables.rules()] == ["6: to 10.96.7.1 prohibit"]


def test_cleaning_up_leaves_the_rules_of_other_proxies(guard, desired, tables):
    theirs = address_rule(CART.ip, table_number(owner_number("canary")))
    tables.items.add(theirs)
    change(guard, desired, {WEB: 80})
    guard.clean_up()
    assert tables.items == {theirs}
    guard.clean_up()
    change(guard, desired, {CART: 80})
    assert DEFAULT in tables.items


def test_rules_that_admit_are_removed_first():
    rules = [address_rule(WEB.ip, TABLE), frontend_rule(CART, TABLE), address_rule(CART.ip, TABLE)]
    assert removal_order(rules)[0] == frontend_rule(CART, TABLE)
