"""The wanted addresses of listeners; test_served_ports.py opens them."""

import errno
import itertools
import os
from dataclasses import replace
from types import SimpleNamespace

import pytest

from userspace_proxy.agent.rounds import listen_addresses
from userspace_proxy.agent.rounds.listen_addresses import (
    ListenAddresses,
    ListenerIndex,
    recovered_addresses,
)
from userspace_proxy.errors import BoundError, ListenError, ShortageError
from userspace_proxy.model import Frontend, IPFamily, Protocol, SocketAddress
from userspace_proxy.model.port_ranges import DialledRange
from userspace_proxy.plan import Planner
from userspace_proxy.plane import Answer, PortPool
from userspace_proxy.policy import NodeFacts
from userspace_proxy.steering import Bind

from ...plan.planning import with_serving
from ..samples import Cluster

FIRST = 27000
LEFT = SimpleNamespace(address=SocketAddress("0.0.0.0", FIRST))


def frontend(ip):
    return Frontend(ip, 80, Protocol.TCP)


def plan_of(ip):
    plan = Planner(NodeFacts()).plan(Cluster().serve("web", ip, "192.0.2.1"))
    (port,) = plan.ports.values()
    return port


def make(bind, last=FIRST + 999, holder="", **more):
    pool = PortPool(FIRST, last)
    return ListenAddresses(bind, pool, transparent=True, holder=lambda *_: holder, **more)


def one(addresses, ip, preferred=None):
    """Return the plan of a Service port with this address, its only key and its wanted listener."""
    plan = plan_of(ip)
    ((key, wanted),) = addresses.wanted(plan, preferred or {}).items()
    return plan, key, wanted


def taken():
    error = ListenError("cannot listen")
    error.__cause__ = OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
    return error


def test_a_frontend_is_bound_even_if_the_node_lacks_its_address():
    _, key, wanted = one(make(Bind.FRONTEND), "10.96.0.1")
    assert key == Frontend("10.96.0.1", 80, Protocol.TCP)
    assert list(wanted.addresses) == [SocketAddress("10.96.0.1", 80)]
    assert (wanted.freebind, wanted.transparent) == (True, True)


@pytest.mark.parametrize(("second", "expected"), [(8080, [80, 8080, FIRST]), (0, [80, FIRST])])
def test_a_loopback_frontends_second_port_is_tried_before_proxy_ports(second, expected):
    addresses = make(Bind.LOOPBACK, second_port=lambda frontend: second and frontend.port + 8000)
    _, _, wanted = one(addresses, "127.98.0.1")
    found = list(itertools.islice(wanted.addresses, len(expected)))
    assert found == [("127.98.0.1", port) for port in expected]


@pytest.mark.parametrize(
    ("ip", "expected"),
    [
        pytest.param("127.98.0.1", [("127.98.0.1", 80), ("127.98.0.1", FIRST)], id="loopback"),
        pytest.param("10.96.0.1", [("127.0.0.1", FIRST), ("127.0.0.1", FIRST + 1)], id="other"),
    ],
)
def test_bound_to_loopback_only_loopback_frontends_keep_their_address(ip, expected):
    _, _, wanted = one(make(Bind.LOOPBACK), ip)
    addresses = iter(wanted.addresses)
    assert [next(addresses), next(addresses)] == expected
    assert not wanted.transparent


def test_a_further_port_of_a_range_is_bound_only_to_its_own_number():
    ranges = (DialledRange("127.98.0.1", 80, 90, 80),)
    plan = with_serving(plan_of("127.98.0.1"), ranges=ranges)
    (own,) = plan.frontends
    other = replace(own, port=81)
    addresses = make(Bind.LOOPBACK)
    wanted = addresses.wanted(replace(plan, frontends=(own, other)), {})
    assert list(wanted[other].addresses) == [("127.98.0.1", 81)]
    assert list(itertools.islice(wanted[own].addresses, 2)) == [
        ("127.98.0.1", 80),
        ("127.98.0.1", FIRST),
    ]
    assert "no proxy port" in str(addresses.explain(plan, own, taken()))
    assert "cannot listen" in str(addresses.explain(plan, other, taken()))


def test_a_proxy_port_is_the_preferred_port_or_the_next_in_the_range():
    frontend = Frontend("10.96.0.1", 80, Protocol.TCP)
    _, _, wanted = one(make(Bind.PROXY_PORT), "10.96.0.1", {frontend: FIRST + 7})
    addresses = iter(wanted.addresses)
    assert [next(addresses).port for _ in range(3)] == [FIRST + 7, FIRST, FIRST + 1]
    plan = replace(plan_of("10.96.0.1"), frontends=(replace(frontend, port=443), frontend))
    (wanted,) = make(Bind.PROXY_PORT).wanted(plan, {frontend: FIRST + 7}).values()
    assert next(iter(wanted.addresses)).port == FIRST + 7


def test_a_limited_number_of_ports_in_use_is_skipped():
    addresses, found = make(Bind.PROXY_PORT), []
    for reset in (
        bool,
        lambda: addresses.start_over(is_short=True),
        lambda: addresses.take([LEFT]),
    ):
        reset()
        for _ in range(2):
            _, _, wanted = one(addresses, "10.96.0.1")
            found += [address.port for address in wanted.addresses]
    assert found == list(range(FIRST, FIRST + 3 * listen_addresses._TRIES))


def test_a_preferred_port_is_offered_even_after_the_limit_of_attempts():
    addresses, frontend = make(Bind.PROXY_PORT), Frontend("10.96.0.1", 80, Protocol.TCP)
    _, _, others = one(addresses, "10.96.0.2")
    assert len(list(others.addresses)) == listen_addresses._TRIES
    _, _, wanted = one(addresses, "10.96.0.1", {frontend: FIRST + 7})
    assert [address.port for address in wanted.addresses] == [FIRST + 7]


def test_all_frontends_share_a_single_proxy_port():
    addresses = make(Bind.PROXY_PORT)
    plan, key, _ = one(addresses, "10.96.0.1")
    assert addresses.by_frontend(plan, Answer({key: "listener"}, {})) == {
        plan.frontends[0]: "listener"
    }
    assert addresses.by_frontend(plan, Answer({}, {key: None})) == {}


def test_a_frontend_in_use_is_reported_with_the_holder():
    addresses = make(Bind.FRONTEND, holder="nginx (pid 812)")
    plan, key, _ = one(addresses, "10.96.0.1")
    error = addresses.explain(plan, key, taken())
    assert str(error) == (
        "10.96.0.1:80/TCP is held by nginx (pid 812) "
        "(stop that process, or give the Service another port)"
    )
    asked = []
    addresses._holder = lambda *of: asked.append(of) or "nginx (pid 812)"
    other = Frontend("fd00:96::1", 443, Protocol.TCP)
    addresses.explain(replace(plan, frontends=(key, other)), other, taken())
    assert asked == [(Protocol.TCP, IPFamily.IPV6, (443,))]


@pytest.mark.parametrize(
    ("last", "held"),
    [
        pytest.param(FIRST, ", nginx has some", id="held-by-others"),
        pytest.param(FIRST - 1, "", id="empty-range"),
    ],
)
def test_a_range_without_a_free_port_is_an_error(last, held):
    addresses = make(Bind.PROXY_PORT, last, "nginx")
    plan, key, wanted = one(addresses, "10.96.0.1")
    why = taken() if list(wanted.addresses) else None
    assert addresses.explain(plan, key, why).message == (
        f"cannot listen for shop/web: no proxy port of {FIRST}-{last} is free{held}"
    )


@pytest.mark.parametrize("change", ["give", "take"])
def test_a_range_counts_as_exhausted_only_after_all_its_ports_were_tried(change):
    addresses, kinds = make(Bind.PROXY_PORT, FIRST + 599, "nginx"), []
    for _ in range(3):
        plan, key, wanted = one(addresses, "10.96.0.1")
        assert list(wanted.addresses)
        error = addresses.explain(plan, key, taken())
        kinds.append((type(error), error.message))
        addresses.start_over(is_short=True)
    start = f"cannot listen for shop/web: no proxy port of {FIRST}-{FIRST + 599}"
    not_tried = (ShortageError, f"{start} that was tried is free, nginx has some")
    assert kinds == [not_tried] * 2 + [(BoundError, f"{start} is free, nginx has some")]
    getattr(addresses, change)([LEFT])
    assert type(addresses.explain(plan, key, taken())) is ShortageError


def test_the_port_of_a_closed_listener_is_offered_again():
    addresses = make(Bind.PROXY_PORT, FIRST)
    for change, offered in ((addresses.take, []), (addresses.give, [FIRST])):
        change([LEFT])
        assert [address.port for address in one(addresses, "10.96.0.1")[2].addresses] == offered


def refused(number):
    error = ListenError("cannot listen on [::1]:27000/TCP", cause=os.strerror(number), hint="why")
    error.__cause__ = OSError(number, os.strerror(number))
    return error


def test_an_error_other_than_a_port_in_use_is_reported_unchanged():
    addresses = make(Bind.FRONTEND)
    plan, key, _ = one(addresses, "10.96.0.1")
    error = refused(errno.EACCES)
    assert addresses.explain(plan, key, error) is error


@pytest.mark.parametrize(
    ("ip", "number", "said"),
    [
        pytest.param("10.96.0.1", errno.EACCES, "Permission denied (why)", id="another-error"),
        pytest.param(
            "fd00::1",
            errno.EADDRNOTAVAIL,
            "IPv6 is switched off on this node (sysctl -w net.ipv6.conf.all.disable_ipv6=0 "
            "net.ipv6.conf.lo.disable_ipv6=0)",
            id="no-ipv6",
        ),
    ],
)
def test_an_error_omits_a_port_number_that_varies_between_attempts(ip, number, said):
    addresses = make(Bind.LOOPBACK)
    plan, key, _ = one(addresses, ip)
    assert str(addresses.explain(plan, key, refused(number))) == (
        f"cannot listen for {plan.key}: {said}"
    )


WEB = Frontend("10.96.0.1", 80, Protocol.TCP)
WEB_6 = Frontend("fd00:96::1", 80, Protocol.TCP)
RECOVERED = [
    # Two frontends with one proxy port, a refused one, and one with a port outside the range.
    (
        Bind.PROXY_PORT,
        {WEB: FIRST, frontend("10.96.0.2"): FIRST, frontend("10.96.0.3"): 0, WEB_6: FIRST - 1},
        [SocketAddress("0.0.0.0", FIRST)],
    ),
    (Bind.PROXY_PORT, {WEB_6: FIRST}, [SocketAddress("::", FIRST)]),
    (Bind.FRONTEND, {WEB: 80, WEB_6: 80}, [WEB.address, WEB_6.address]),
]


@pytest.mark.parametrize(("bind", "recovered", "addresses"), RECOVERED)
def test_each_recovered_listener_is_listed_once(bind, recovered, addresses):
    found = recovered_addresses(recovered, bind, PortPool(FIRST, FIRST + 9))
    assert list(found) == [(Protocol.TCP, at) for at in addresses]


POD = "192.0.2.1"


async def test_listeners_are_indexed_while_their_service_ports_are_served(make):
    cluster, served_ports = Cluster(), make(Bind.PROXY_PORT)
    cluster.serve("cart", "10.96.0.1", POD)
    served_ports.follow(cluster.serve("web", "10.96.0.2", POD))
    index = served_ports.listeners
    ports = {index.get(frontend(ip)).address.port for ip in ("10.96.0.1", "10.96.0.2")}
    assert len(ports) == 2
    served_ports.follow(cluster.serve("web", "10.96.0.3", POD))
    assert index.get(frontend("10.96.0.2")) is None
    assert index.get(frontend("10.96.0.3")).address.port in ports


class Owner:
    def __init__(self, *frontends):
        self.listeners = {each: (self, each) for each in frontends}


def test_a_moved_frontend_is_indexed_for_its_new_service_port():
    one, two, both = frontend("10.96.0.1"), frontend("10.96.0.2"), ListenerIndex()
    before, after = Owner(one, two), Owner(one)
    both.change(before, before.listeners)
    both.change(after, after.listeners)
    both.change(before)
    assert both.get(one) == (after, one)
    assert both.get(two) is None
