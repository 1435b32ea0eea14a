from __future__ import annotations

import errno
from contextlib import closing

import pytest

from userspace_proxy.errors import SteeringError
from userspace_proxy.kernel.netlink.rtnetlink import LocalRoute
from userspace_proxy.kernel.nf_tables.kept_table import KeptTable
from userspace_proxy.kernel.offers import LACKS_NOTHING, KernelOffers
from userspace_proxy.model import Frontend, IPFamily, Protocol
from userspace_proxy.steering import SteeringFacts
from userspace_proxy.steering.local.desired import DesiredState
from userspace_proxy.steering.local.guard import NftGuard, NoGuard, OpenGuard, make_guard, missing
from userspace_proxy.steering.local.kernel import RoutingTables

from .routing import MemoryTables

WEB = Frontend("10.96.7.1", 80, Protocol.TCP)
ALSO_WEB = Frontend("10.96.7.1", 81, Protocol.TCP)
CART = Frontend("10.96.7.2", 80, Protocol.TCP)
OUTSIDE = Frontend("198.51.100.7", 443, Protocol.TCP)
LOOPBACK = Frontend("127.0.0.9", 80, Protocol.TCP)
OWNER = 7
TO_WEB = LocalRoute("10.96.7.1/32", "10.1.0.1", OWNER)
TO_CART = LocalRoute("10.96.7.2/32", "10.1.0.1", OWNER)


def test_only_loopback_frontends_are_served_without_net_admin():
    desired = DesiredState(["fd00:96::/112"])
    guard = NoGuard(desired)
    guard.change(desired.change({WEB: 80, LOOPBACK: 80}))
    assert {network: str(cause) for network, cause in desired.refused.items()} == {
        network: f"cannot route {network} to this node: NET_ADMIN is missing "
        "(run as root or grant NET_ADMIN; loopback addresses need nothing)"
        for network in ("10.96.7.1/32", "fd00:96::/112")
    }
    assert list(map(guard.look(), (WEB, LOOPBACK))) == [False, True]
    assert guard.put_right() == 0
    guard.clean_up()


@pytest.fixture
def tables():
    return MemoryTables()


@pytest.fixture
def desired(request):
    """An empty desired state; ``@in_ranges`` adds two ranges of Service addresses."""
    desired = DesiredState(getattr(request, "param", ()))
    desired.sources[IPFamily.IPV4] = "10.1.0.1"
    return desired


RANGES = ["10.96.0.0/16", "10.97.0.0/16"]
in_ranges = pytest.mark.parametrize("desired", [RANGES], ids=["ranges"], indirect=True)


@pytest.fixture
def guard(tables, desired):
    return OpenGuard(tables, OWNER, desired)


def change(guard, desired, affected):
    guard.change(desired.change(affected))


def test_a_frontend_address_has_a_route_that_identifies_the_proxy(guard, tables, desired):
    change(guard, desired, {WEB: 80, CART: 80, LOOPBACK: 80})
    change(guard, desired, {CART: None})
    assert tables.items == {TO_WEB}


def test_route_differences_are_counted_and_corrected(guard, tables, desired):
    desired.change({WEB: 80})
    theirs = LocalRoute("10.96.7.9/32", metric=OWNER + 1)
    tables.items |= {TO_CART, theirs}
    assert guard.put_right() == 2
    assert guard.put_right() == 0
    assert tables.items == {TO_WEB, theirs}


def test_a_rejected_route_is_retried_and_does_not_count_as_drift(guard, tables, desired):
    tables.refused.add(TO_WEB)
    change(guard, desired, {WEB: 80, CART: 80})
    assert desired.refused.keys() == {"10.96.7.1/32"}
    assert guard.put_right() == 0
    tables.refused.clear()
    guard.put_right()
    assert desired.refused == {}
    assert tables.items == {TO_WEB, TO_CART}


def test_a_removed_address_is_no_longer_listed_as_rejected(guard, tables, desired):
    tables.refused.add(TO_WEB)
    change(guard, desired, {WEB: 80})
    change(guard, desired, {WEB: None})
    assert desired.refused == {}


@in_ranges
def test_a_range_is_routed_unless_local_to_the_node(guard, tables, desired):
    desired.change({WEB: 80})
    assert guard.put_right() == 2
    assert tables.items == {LocalRoute(network, "10.1.0.1", OWNER) for network in RANGES}
    tables.items.clear()
    tables.node_networks.update(RANGES)
    assert guard.put_right() == 0


@in_ranges
def test_a_frontend_is_active_if_its_address_or_range_is_routed(guard, tables, desired):
    desired.change({WEB: 80, OUTSIDE: 443, LOOPBACK: 80})
    frontends = (WEB, OUTSIDE, LOOPBACK)
    assert list(map(guard.look(), frontends)) == [False, False, True]
    guard.put_right()
    assert all(map(guard.look(), frontends))
    tables.items.remove(LocalRoute(RANGES[1], "10.1.0.1", OWNER))
    assert list(map(guard.look(), frontends)) == [False, True, True]


def test_cleaning_up_removes_only_the_proxys_own_routes(guard, tables, desired):
    change(guard, desired, {WEB: 80})
    theirs = LocalRoute("10.96.7.9/32")
    tables.items.add(theirs)
    guard.clean_up()
    guard.clean_up()
    assert tables.items == {theirs}
    assert not guard.is_affected()
    guard.close()


def test_an_address_is_guarded_before_and_until_it_is_routed(node, tables, desired, monkeypatch):
    def refuse(*_changes, **_routes):
        raise SteeringError("no buffer space available")

    guard = NftGuard(tables, OWNER, desired, "userspace-proxy/local")
    change(guard, desired, {WEB: 80})
    for part, affected in ((KeptTable, {CART: 80}), (tables, {WEB: None})):
        with monkeypatch.context() as refusing:
            refusing.setattr(part, "change", refuse)
            with pytest.raises(SteeringError):
                change(guard, desired, affected)
        assert (guard.recover(), tables.items) == ([WEB], {TO_WEB})
    guard.close()


def test_a_frontend_is_active_while_the_guard_table_has_its_desired_state(node, tables, desired):
    guard = NftGuard(tables, OWNER, desired, "userspace-proxy/local")
    change(guard, desired, {WEB: 80, CART: 80})
    change(guard, desired, {CART: None})
    assert list(map(guard.look(), (WEB, CART))) == [True, False]
    desired.change({WEB: None, ALSO_WEB: 81})
    assert list(map(guard.look(), (WEB, ALSO_WEB))) == [False, False]
    desired.change({WEB: 80, ALSO_WEB: None})
    assert list(map(guard.look(), (WEB, ALSO_WEB))) == [True, True]
    node.run("nft flush ruleset")
    assert list(map(guard.look(), (WEB, ALSO_WEB))) == [False, False]
    assert guard.put_right() > 0
    assert list(map(guard.look(), (WEB, ALSO_WEB))) == [True, True]
    guard.close()


def kind_of_guard(*, own_namespace, kernel=LACKS_NOTHING):
    with closing(RoutingTables()) as tables:
        facts, desired = SteeringFacts(), DesiredState()
        guard = make_guard(tables, facts, desired, own_namespace=own_namespace, kernel=kernel)
        guard.close()
        return type(guard).__name__


def test_the_local_guard_uses_nftables_if_the_kernel_supports_it(node):
    assert {kind_of_guard(own_namespace=own) for own in (True, False)} == {"NftGuard"}
    assert {missing(LACKS_NOTHING, own_namespace=own) for own in (True, False)} == {""}


def test_without_nftables_local_steering_needs_a_namespace_of_its_own(node):
    without = KernelOffers({"nf_tables": errno.EPROTONOSUPPORT})
    assert kind_of_guard(own_namespace=True, kernel=without) == "OpenGuard"
    assert missing(without, own_namespace=True) == ""
    lack = (
        "it needs nftables to keep clients from other daemons' ports on this node: "
        "this kernel lacks nf_tables (modprobe nf_tables, CONFIG_NF_TABLES)"
    )
    assert missing(without, own_namespace=False) == lack
    with pytest.raises(SteeringError) as caught:
        kind_of_guard(own_namespace=False, kernel=without)
    assert str(caught.value) == (f"cannot steer by local: {lack} (run with --steering=none)")
