"""What local steering relies on of routes: the same for the simulated kernel and the real one."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from userspace_proxy.kernel.netlink.messages import CREATE, EXCL
from userspace_proxy.kernel.netlink.rtnetlink import (
    DEL_ROUTE,
    NEW_ROUTE,
    LocalRoute,
    write_local_route,
)
from userspace_proxy.steering.local.kernel import PROTOCOL, RoutingTables

from .contract import Contract, RealKernel, SimulatedKernel
from .netlink_kernel import ROUTE
from .netlink_routes import Link

OWNER, OTHER = 0, 1 << 24 | 0xABCDEF
WEB, WEB6 = "10.96.7.1/32", "fd00:96::1/128"
NODE, NODE6 = "10.1.0.1", "fd00:1::1"


@pytest.fixture(params=[SimulatedKernel, RealKernel], ids=["simulated", "real"])
def kernel(request: pytest.FixtureRequest) -> Iterator[Contract]:
    kernel: Any = request.param()
    if kernel.is_real:
        kernel.net.run(
            f"ip link set lo up; ip link add eth0 type veth peer name other; ip link set eth0 up; "
            f"ip address add {NODE}/16 dev eth0; ip address add {NODE6}/64 dev eth0 nodad"
        )
    else:
        kernel.add_link(Link(2, "eth0", "veth", addresses=(f"{NODE}/16", f"{NODE6}/64")))
    yield kernel
    kernel.close()


@pytest.fixture
def tables(kernel: Contract) -> Iterator[RoutingTables]:
    with kernel.inside(), closing(RoutingTables()) as tables:
        yield tables


def change(kernel: Contract, kind: int, route: LocalRoute, protocol: int = PROTOCOL) -> int:
    """Have another program change a route; return an error number."""
    flags = CREATE | EXCL if kind == NEW_ROUTE else 0
    with closing(kernel.socket(socket.AF_NETLINK, socket.SOCK_RAW, ROUTE)) as sock:
        sock.settimeout(5.0)
        packed = bytearray(write_local_route(kind, flags, route, protocol))
        packed[6] |= 4  # NLM_F_ACK
        sock.send(bytes(packed))
        return -int.from_bytes(sock.recv(1 << 16)[16:20], "little", signed=True)


@pytest.mark.parametrize(("network", "source"), [(WEB, NODE), (WEB6, NODE6)])
def test_a_route_exists_once_for_each_owner(
    kernel: Contract, tables: RoutingTables, network: str, source: str
) -> None:
    for owner in (OWNER, OTHER):
        route = LocalRoute(network, source, owner)
        assert change(kernel, NEW_ROUTE, route) == 0
        assert change(kernel, NEW_ROUTE, route) == errno.EEXIST
        assert change(kernel, NEW_ROUTE, route, protocol=4) == errno.EEXIST
    assert tables.local_table().ours == {
        LocalRoute(network, source, owner) for owner in (OWNER, OTHER)
    }
    assert change(kernel, DEL_ROUTE, LocalRoute(network, source, OTHER)) == 0
    assert tables.local_table().ours == {LocalRoute(network, source, OWNER)}
    assert change(kernel, DEL_ROUTE, LocalRoute(network, source, OTHER)) == errno.ESRCH
    assert change(kernel, DEL_ROUTE, LocalRoute(network, source, OWNER), protocol=4) == errno.ESRCH
    assert change(kernel, DEL_ROUTE, LocalRoute(network, source, OWNER)) == 0
    assert not tables.local_table().ours


@pytest.mark.parametrize("network", [WEB, WEB6])
def test_a_removal_without_a_number_is_of_the_first_route_there_is(
    kernel: Contract, tables: RoutingTables, network: str
) -> None:
    for owner in (OTHER, OWNER):
        assert change(kernel, NEW_ROUTE, LocalRoute(network, "", owner)) == 0
    for left in ({OTHER}, set()):
        assert change(kernel, DEL_ROUTE, LocalRoute(network, "", OWNER)) == 0
        assert {one.metric for one in tables.local_table().ours} == left


@pytest.mark.parametrize(("network", "source"), [(WEB, "10.1.9.9"), (WEB6, "fd00:1::99")])
def test_a_source_is_one_of_the_nodes_addresses(
    kernel: Contract, network: str, source: str
) -> None:
    assert change(kernel, NEW_ROUTE, LocalRoute(network, source, OWNER)) == errno.EINVAL


def test_an_address_of_the_node_can_be_routed_with_a_number(
    kernel: Contract, tables: RoutingTables
) -> None:
    own = f"{NODE}/32"
    assert change(kernel, NEW_ROUTE, LocalRoute(own, "", OWNER)) == errno.EEXIST
    assert change(kernel, NEW_ROUTE, LocalRoute(own, "", OTHER)) == 0
    assert own in tables.local_table().others


def test_changes_by_others_are_seen_and_own_ones_are_not(
    kernel: Contract, tables: RoutingTables
) -> None:
    tables.changes()
    route = LocalRoute(WEB, NODE, OWNER)
    assert tables.change(added=[route]) == {}
    assert not tables.changes().is_touched
    assert change(kernel, DEL_ROUTE, route) == 0
    assert tables.changes().is_touched
    assert change(kernel, NEW_ROUTE, route._replace(network=WEB6, source="")) == 0
    assert tables.changes().is_touched
    assert not tables.changes().is_touched


def test_what_is_refused_of_several_is_said(kernel: Contract, tables: RoutingTables) -> None:
    first, second = LocalRoute(WEB, NODE, OWNER), LocalRoute("10.96.7.2/32", NODE, OWNER)
    assert change(kernel, NEW_ROUTE, first) == 0
    assert set(tables.change(added=[first, second])) == {first}
    assert tables.local_table().ours == {first, second}
    tables.change(removed=[first, second, LocalRoute("10.96.7.3/32", NODE, OWNER)])
    assert not tables.local_table().ours
