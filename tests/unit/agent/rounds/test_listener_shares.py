"""At the limit, the namespace with the most listeners gives some up to those with few."""

import contextlib
import socket

import pytest

from userspace_proxy.agent.rounds import listen_addresses
from userspace_proxy.agent.rounds.listener_shares import ListenerShares
from userspace_proxy.cluster import Store
from userspace_proxy.model import (
    Endpoint,
    EndpointSlice,
    IPFamily,
    PortKey,
    Service,
    ServiceKey,
    ServicePort,
    ServicePortName,
    SliceKey,
    SlicePort,
)
from userspace_proxy.plane import PortPool
from userspace_proxy.policy.shares import client_share
from userspace_proxy.steering import REFUSE, Bind

from ..conftest import retry

PORTS = 40
SHARE = client_share(PORTS)


def key(namespace, name, port=0):
    return PortKey(ServicePortName(namespace, name, f"p{port}"), IPFamily.IPV4)


def holding(**services):
    """Return shares in which Services hold this many listeners: ``holding(tenant_big=40)``."""
    shares = ListenerShares()
    for text, count in services.items():
        for port in range(count):
            shares.hold(key(*text.split("_"), port), 1)
    return shares


def give(shares):
    """Make each giver give up its listeners; return the givers as text."""
    given = []
    for giver in shares.givers():
        shares.hold(giver, 0)
        given.append(str(giver))
    return given


def test_the_namespace_with_the_most_listeners_loses_its_newest_listeners():
    shares = holding(shop_web=3, tenant_small=1, tenant_big=20, other_x=21)
    shares.wait(key("shop", "cart"))
    shares.wait(key("new", "web"))
    assert give(shares) == ["other/x:p20", "tenant/big:p19"]


def test_redistribution_stops_when_the_giver_or_the_receiver_has_its_share():
    shares = holding(shop_web=SHARE - 2, tenant_big=SHARE + 9, other_x=SHARE)
    for port in range(5):
        shares.wait(key("shop", "cart", port))
        shares.wait(key("other", "cart", port))
    assert len(give(shares)) == 2
    shares = holding(tenant_big=SHARE + 2)
    for port in range(5):
        shares.wait(key("shop", "cart", port))
    assert len(give(shares)) == 2
    assert give(shares) == []


def test_a_port_with_more_listeners_than_the_excess_keeps_them():
    shares = holding(a_web=98, c_web=70, **{f"other{n}_web": 97 for n in range(6)})
    shares.hold(key("c", "web", "many"), 50)
    shares.wait(key("a", "cart"))
    assert give(shares) == ["c/web:p69"]
    shares = holding(a_web=98, d_web=101, **{f"other{n}_web": 97 for n in range(5)})
    for port in range(3):
        shares.hold(key("c", "web", port), 40)
    shares.wait(key("a", "cart"))
    assert give(shares) == ["d/web:p100"], "the largest namespace has no port that is small enough"
    assert give(shares) == []


def test_within_a_namespace_no_service_loses_more_listeners_than_its_excess():
    shares = holding(shop_big=SHARE - 2, shop_web=SHARE - 2, shop_x=1, shop_y=1)
    shares.hold(key("shop", "big", "many"), 5)
    shares.wait(key("shop", "cart"))
    assert give(shares) == [f"shop/big:p{SHARE - 3}"]
    shares = holding(shop_web=SHARE + 1)
    shares.hold(key("shop", "big", "many"), SHARE + 3)
    shares.wait(key("shop", "cart"))
    assert give(shares) == [f"shop/web:p{SHARE}"]
    assert give(shares) == []


def test_freed_listeners_go_first_to_namespaces_and_services_with_the_fewest_listeners():
    shares = holding(tenant_big=30, tenant_web=2, shop_web=3)
    for waiting in (key("tenant", "big", 30), key("tenant", "web", 2)):
        shares.wait(waiting)
    for port in (3, 4, 5):
        shares.wait(key("shop", "web", port))
    turns = []
    while (turn := shares.next_waiting()) is not None:
        assert shares.is_waiting(turn)
        shares.end(turn)
        turns.append(str(turn))
    assert turns == [
        *(f"shop/web:p{port}" for port in (3, 4, 5)),
        "tenant/web:p2",
        "tenant/big:p30",
    ]
    assert not shares.others_wait(key("new", "web"))


def test_a_service_is_waiting_until_all_its_ports_are_served():
    shares, web = ListenerShares(), ServiceKey("shop", "web")
    shares.wait(key("shop", "web", 1))
    shares.wait(key("shop", "web", 2))
    shares.end(key("shop", "web", 1))
    assert shares.is_waiting(web)
    assert shares.others_wait(key("shop", "web", 1))
    assert not shares.others_wait(key("shop", "web", 2))
    shares.end(key("shop", "web", 2))
    shares.end(key("shop", "web", 2))
    assert not shares.is_waiting(web)


@pytest.mark.parametrize(
    ("held", "expected"),
    [
        pytest.param({"shop_web": 4, "a_b": 30}, "", id="below"),
        pytest.param({"shop_web": 30}, "Service shop/web has 30 of 30 listeners", id="service"),
        pytest.param(
            {"shop_web": 1, "shop_x": 15, "a_b": 9},
            "namespace shop has 16 of 25 listeners",
            id="namespace",
        ),
    ],
)
def test_the_excess_of_listeners_is_computed_for_a_service_or_its_namespace(held, expected):
    assert holding(**held).excess(key("shop", "web", 99)) == expected


class CountingPool(PortPool):
    """Counts the searches for a free port number."""

    searches = 0

    def candidates(self, preferred=None):
        self.searches += 1
        return super().candidates(preferred)


class Cluster:
    """Services of several namespaces, with many ports each."""

    def __init__(self):
        self.store, self._ips = Store(), {}

    def serve(self, namespace, name, count=1, more_ips=0):
        """Serve a Service with this many ports and one endpoint; return the snapshot."""
        service = ServiceKey(namespace, name)
        numbers = range(1, count + 1)
        ips = (self._ips.setdefault(service, f"10.96.0.{len(self._ips) + 1}"),)
        ports = tuple(ServicePort(f"p{n}", n, "TCP", 0) for n in numbers)
        more = tuple(f"198.51.100.{n}" for n in range(more_ips))
        self.store.put_service(Service(service, ports, cluster_ips=ips, load_balancer_ips=more))
        targets = tuple(SlicePort(f"p{n}", 8080, "TCP") for n in numbers)
        at = SliceKey(namespace, name)
        pods = (Endpoint("192.0.2.1"),)
        self.store.put_slice(EndpointSlice(at, service, IPFamily.IPV4, targets, pods))
        return self.store.snapshot()


def unserved(served_ports):
    """Return how many Service ports of each Service have no listener."""
    counts = {}
    for served in served_ports:
        name = str(served.plan.key.name.service)
        counts[name] = counts.get(name, 0) + (not served.listeners)
    return counts


def settle(served_ports, snapshot):
    """Do rounds and retries until nothing changes; return how many retries that needed."""
    for retries in range(10):
        served_ports.follow(snapshot)
        if not retry(served_ports):
            return retries
    raise AssertionError("listeners move back and forth")


@pytest.fixture(params=["proxy-ports", "descriptors"])
def few(request, make, plane):
    """Service ports with at most PORTS listeners, because ports or descriptors are limited."""
    if request.param == "proxy-ports":
        return make(Bind.PROXY_PORT, CountingPool(27800, 27800 + PORTS - 1))
    plane._listeners._limit = 2 * PORTS
    return make(Bind.PROXY_PORT, CountingPool(27800, 27800 + 4 * PORTS))


async def test_a_service_with_twice_the_ports_loses_a_listener_to_each_port_of_new_services(few):
    cluster, told = Cluster(), []
    few.shortages.on_excess = lambda service, cause: told.append((str(service), cause))
    settle(few, cluster.serve("tenant", "big", 2 * PORTS))
    assert unserved(few) == {"tenant/big": PORTS}
    for number in range(3):
        snapshot = cluster.serve(f"shop-{number}", "web", 2)
    assert settle(few, snapshot) == 2, "one retry closes listeners, one opens listeners"
    assert unserved(few).pop("tenant/big") == PORTS + 2 * 3
    assert sum(unserved(few).values()) == PORTS + 2 * 3
    ((service, cause),) = told
    assert service == "tenant/big"
    assert "; Service tenant/big has 40 of 40 listeners (" in cause
    problems = {served.problem for served in few if served.plan.key.name.namespace == "tenant"}
    assert sum("Service tenant/big has " in problem for problem in problems) == PORTS + 2 * 3


async def test_clients_are_refused_before_a_listener_is_given_up(few):
    cluster = Cluster()
    settle(few, cluster.serve("tenant", "big", PORTS))
    few.follow(cluster.serve("shop", "web"))
    before = few.steered.targets()
    assert retry(few)
    change = few.steered.change().changed
    ((frontend, target),) = change.items()
    assert target is REFUSE
    assert before[frontend] not in few.pool.free, "rules still lead to its proxy port"
    few.follow(cluster.serve("tenant", "big", PORTS))
    assert before[frontend] in few.pool.free, "a change of the giver doesn't reopen its listener"


async def test_without_a_free_port_a_retry_tries_only_one_service_port(few):
    cluster = Cluster()
    settle(few, cluster.serve("tenant", "big", 2 * PORTS))
    few.pool.searches = 0
    assert not retry(few)
    assert few.pool.searches == 1
    few.follow(cluster.serve("tenant", "big", 2 * PORTS + 5))
    assert few.pool.searches == 1


async def test_ports_with_one_listener_per_address_do_not_displace_each_other_forever(make, plane):
    plane._listeners._limit = 2 * PORTS
    ports, cluster = make(Bind.FRONTEND), Cluster()
    for args in (("shop", "web", 15), ("other", "web", 3), ("tenant", "big", 10)):
        cluster.serve(*args)
    settle(ports, cluster.serve("tenant", "last", more_ips=11))
    assert sum(len(served.listeners) for served in ports) == PORTS
    settle(ports, cluster.serve("shop", "cart"))
    assert unserved(ports)["shop/cart"] == 0
    assert unserved(ports)["tenant/big"] == 1
    assert unserved(ports)["tenant/last"] == 0


@pytest.mark.parametrize(
    ("free", "given"), [pytest.param(10, 0, id="free-behind"), pytest.param(0, 1, id="none-free")]
)
async def test_listeners_are_given_up_for_ports_in_use_only_if_no_port_is_free(
    make, monkeypatch, free, given
):
    monkeypatch.setattr(listen_addresses, "_TRIES", 8)
    first, others = 27800 + PORTS, 8 * 4
    ports, cluster = make(Bind.PROXY_PORT, PortPool(27800, first + others + free - 1)), Cluster()
    settle(ports, cluster.serve("tenant", "big", PORTS))
    with contextlib.ExitStack() as stack:
        for number in range(first, first + others):
            program = stack.enter_context(socket.socket())
            program.bind(("0.0.0.0", number))
        snapshot, lost = cluster.serve("shop", "web"), set()
        for _ in range(12):
            ports.follow(snapshot)
            retry(ports)
            lost.add(unserved(ports)["tenant/big"])
        assert unserved(ports)["shop/web"] == 0
        assert max(lost) == given
