"""The changes that a round takes from namespaces that change rarely, often and constantly."""

import itertools
from dataclasses import replace

import pytest

from userspace_proxy.agent.rounds.change_turns import ChangeTurns
from userspace_proxy.cluster import Store
from userspace_proxy.model import (
    Endpoint,
    EndpointSlice,
    IPFamily,
    ServiceKey,
    ServicePort,
    SliceKey,
)

from ...model.samples import service

MANY = 1_000
"""A Service with this many endpoints and ten ports needs a whole turn."""
PORTS = tuple(ServicePort(f"p{n}", n, "TCP") for n in range(1, 11))
PODS = tuple(Endpoint(f"192.0.2.{n % 250}", hostname=f"web-{n}") for n in range(MANY))


class Rounds:
    """The sync rounds of one proxy; each round is due when the test calls it."""

    def __init__(self):
        self.now, self.store = 0.0, Store()
        self.elements = 0
        self.turns, self.taken = ChangeTurns(lambda: self.now, lambda _: self.elements), None
        self._generation = 0

    def change(self, name, count=MANY, namespace="busy"):
        """Change the endpoints of a Service, which is added first if it is missing."""
        self._generation += 1
        key = ServiceKey(namespace, name)
        self.store.put_service(service(key, PORTS if count > 10 else PORTS[:1], cluster_ips=()))
        new = Endpoint(f"198.51.100.{self._generation}")
        pods, item = (new, *PODS[1:count]), SliceKey(namespace, name)
        self.store.put_slice(EndpointSlice(item, key, IPFamily.IPV4, (), pods))

    def round(self, after_s=0.0):
        """Do a round after some time; return the names of the Services whose changes it took."""
        self.now += after_s
        have = self.taken
        self.taken = self.turns.take(have, self.store.snapshot())
        before = have.services if have else {}
        services = self.taken.services
        return {key.name for key in services if before.get(key) is not services[key]}


@pytest.fixture
def rounds():
    """Return rounds after the first one, which found an empty cluster."""
    found = Rounds()
    found.round()
    return found


def test_a_change_that_exceeds_the_rest_of_a_turn_waits_for_the_next_turn(rounds):
    rounds.elements = 3_000
    for n in range(3):
        rounds.change(f"web-{n}", count=1)
    assert [len(rounds.round(1.0)) for _ in range(3)] == [1, 1, 1]


def test_a_new_port_costs_more_than_a_changed_port(rounds):
    taken = []
    for _ in range(2):
        for n in range(300):
            rounds.change(f"web-{n}", count=1)
        taken.append(len(rounds.round()))
        rounds.round(1.0)
    assert taken[0] < 300 == taken[1]


def empty_slices(rounds, name):
    key = ServiceKey("busy", name)
    rounds.change(name, count=1)
    for n in range(10_000):
        item = SliceKey("busy", f"{name}-{n}")
        rounds.store.put_slice(EndpointSlice(item, key, IPFamily.IPV4, (), ()))


def elements(rounds, name):
    rounds.elements = 10_000
    rounds.change(name, count=1)


def addresses(rounds, name):
    key, ips = ServiceKey("busy", name), [f"203.0.113.{n}" for n in range(200)]
    rounds.store.put_service(service(key, PORTS, external_ips=tuple(ips)))


@pytest.mark.parametrize(
    ("put", "count"),
    [
        pytest.param(empty_slices, 4, id="slices"),
        pytest.param(elements, 2, id="elements"),
        pytest.param(addresses, 2, id="addresses"),
    ],
)
def test_slices_kernel_elements_and_addresses_add_to_the_cost_of_a_change(rounds, put, count):
    for n in range(count):
        put(rounds, f"web-{n}")
    taken = rounds.round()
    assert len(taken) < count
    assert len(taken | rounds.round(60.0)) == count


def test_waiting_services_get_their_turn_while_another_service_changes_constantly(rounds):
    for name in ("a", "b", "c"):
        rounds.change(name)
    order = []
    while len(order) < 3:
        taken = rounds.round(1.0) - set(order)
        order += taken
        rounds.change(order[0])
    assert sorted(order) == ["a", "b", "c"]


def test_a_constantly_changing_namespace_waits_longer_each_time(rounds):
    taken_at = []
    for _ in range(100):
        rounds.change("web")
        if rounds.round(0.125):
            taken_at.append(rounds.now)
    waits = [after - before for before, after in itertools.pairwise(taken_at)]
    assert waits[0] <= 0.25
    assert waits == sorted(waits)
    assert waits[-1] == 1.0


def test_a_namespace_without_recent_changes_does_not_wait(rounds):
    for _ in range(100):
        rounds.change("web")
        rounds.round(0.125)
    rounds.round(60.0)
    rounds.change("web")
    assert rounds.round(60.0) == {"web"}
    rounds.change("web")
    assert (rounds.round(), rounds.round(0.3)) == (set(), {"web"})


def test_a_small_service_of_a_waiting_namespace_does_not_wait(rounds):
    rounds.change("web")
    rounds.round()
    rounds.change("web")
    rounds.change("small", count=2)
    assert rounds.round(0.01) == {"small"}
    assert 0 < rounds.turns.next_in_s < 1.0
    assert ServiceKey("busy", "web") in rounds.turns.waiting


def test_the_deletion_of_a_service_does_not_wait(rounds):
    rounds.change("web")
    rounds.change("other")
    rounds.round()
    rounds.round(1.0)
    rounds.change("web")
    rounds.store.delete_service(ServiceKey("busy", "other"))
    rounds.round()
    assert rounds.taken.services.keys() == {ServiceKey("busy", "web")}


def put(rounds, ports=PORTS, **fields):
    """Change a large Service's ports and fields; return the Service as the next round has it."""
    key = ServiceKey("busy", "web")
    rounds.store.put_service(service(key, ports, **fields))
    rounds.round()
    return rounds.taken.services[key].service


@pytest.fixture
def waiting(rounds):
    """Return rounds in which a large Service's namespace waits for its turn."""
    rounds.change("web")
    put(rounds, **OLD)
    return rounds


OLD = {
    "cluster_ips": ("198.51.100.1",),
    "external_ips": ("198.51.100.2", "198.51.100.3"),
    "load_balancer_ips": ("198.51.100.4",),
    "health_check_node_port": 30000,
}


def test_a_constantly_changing_large_service_waits(waiting):
    for seconds in range(100):
        put(waiting, **OLD, affinity_timeout_s=seconds)
    assert put(waiting, **OLD, is_internal_local=True) == service(
        ServiceKey("busy", "web"), PORTS, **OLD
    )
    waiting.round(waiting.turns.next_in_s)
    assert waiting.taken is waiting.store.snapshot()


@pytest.mark.parametrize(
    ("now", "kept"),
    [
        ({"cluster_ips": ("198.51.100.9",)}, {"cluster_ips": ()}),
        ({"external_ips": ("198.51.100.3",)}, {"external_ips": ("198.51.100.3",)}),
        ({"load_balancer_ips": ()}, {"load_balancer_ips": ()}),
        ({"health_check_node_port": 30001}, {"health_check_node_port": 0}),
        ({"load_balancer_source_ranges": ("192.0.2.0/24",)},) * 2,
        ({"ports": PORTS[1:]},) * 2,
        ({"ports": (replace(PORTS[0], protocol="UDP"),)}, {"ports": ()}),
        ({"ports": (replace(PORTS[0], node_port=30080),)}, {"ports": PORTS[:1]}),
    ],
    ids=["vip", "external-ip", "lb-ip", "health", "ranges", "port", "protocol", "node-port"],
)
def test_removals_from_a_waiting_service_take_effect_immediately(waiting, now, kept):
    key = ServiceKey("busy", "web")
    found = put(waiting, **{**OLD, "affinity_timeout_s": 7, **now})
    assert found == service(key, **{"ports": PORTS, **OLD, **kept})


def test_a_removed_node_port_is_released_without_waiting(rounds):
    rounds.change("web")
    ports = tuple(replace(port, node_port=30000 + port.port) for port in PORTS)
    put(rounds, ports)
    udp = replace(ports[0], name="udp", protocol="UDP")
    now = (replace(ports[0], node_port=30100), udp, *ports[1:])
    assert put(rounds, now).ports == (PORTS[0], *ports[1:])


def test_a_service_moved_to_another_proxy_is_dropped_immediately(waiting):
    assert put(waiting, **OLD, proxy_name="other").proxy_name == "other"


def test_only_endpoints_that_the_plan_evaluates_add_to_a_services_wait(rounds):
    rounds.change("web", 10_000)
    put(rounds, tuple(ServicePort(f"p{n}", n, "TCP") for n in range(1, 1_001)))
    rounds.change("web", 10_000)
    rounds.round()
    assert rounds.turns.next_in_s < 5.0
