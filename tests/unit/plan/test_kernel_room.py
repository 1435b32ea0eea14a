"""Tests of which Services are too large for the kernel path."""

from __future__ import annotations

import pytest

from userspace_proxy.agent.rounds.kernel_path import choices_of
from userspace_proxy.causes.notes import kernel_path_unused, weights_coarse
from userspace_proxy.cluster import ServiceState
from userspace_proxy.model import (
    Balance,
    DataPath,
    Endpoint,
    Handling,
    IPFamily,
    ServiceKey,
    ServicePort,
    ServiceType,
    SlicePort,
)
from userspace_proxy.model.port_ranges import AskedRange
from userspace_proxy.plan import Planner
from userspace_proxy.plan.claims import claims_of
from userspace_proxy.plan.kernel_room import (
    COARSE,
    ELEMENTS_MAX,
    NO_ELEMENTS,
    NO_RULES,
    NO_SIZE,
    RULE_ELEMENTS,
    TOO_EXACT,
    KernelFit,
    KernelRoom,
    KernelSize,
    kernel_size,
)
from userspace_proxy.policy import EndpointIndex, NodeFacts

from ..model.samples import CART, CART_IP, CART_IP_V6, POD_A, WEB, WEB_IP, service, slice_of
from .planning import plan_of, store_of, the_port

KERNEL = Handling(path=DataPath.KERNEL)
HASHED = Handling(path=DataPath.KERNEL, balance=Balance.SOURCE_HASH)
PINNED = {"affinity_timeout_s": 60, "handling": KERNEL}
OUTSIDE = {"external_ip_networks": ("203.0.113.0/24",)}


def ips(count):
    return [f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}" for n in range(count)]


def size(given, *slices, **facts):
    node = NodeFacts(**facts)
    return kernel_size(given, EndpointIndex(slices), claims_of(given, node).ports, node)


def test_a_service_with_too_many_pinned_endpoints_is_on_userspace_with_a_note():
    assert the_port(service(**PINNED), slice_of(*ips(500))).path.path is DataPath.KERNEL
    port = the_port(service(**PINNED), slice_of(*ips(501)))
    why = (
        "it would have more than 2,000 rules: 4 for each endpoint with session affinity and 1 for "
        "each source range, counted for each port"
    )
    assert port.path[:2] == (DataPath.USERSPACE, why)
    assert port.notes == (kernel_path_unused(why),)


@pytest.mark.parametrize(
    ("count", "path"),
    [
        pytest.param(5, DataPath.KERNEL, id="at-the-bound"),
        pytest.param(6, DataPath.USERSPACE, id="beyond"),
    ],
)
def test_endpoints_are_counted_per_port_and_all_ports_share_a_path(count, path):
    ports = [ServicePort(f"p{n}", 80 + n, "TCP") for n in range(count)]
    targets = [SlicePort(f"p{n}", 8080 + n, "TCP") for n in range(count)]
    plan = plan_of(service(ports=ports, **PINNED), slice_of(*ips(100), ports=targets))
    assert [port.path.path for port in plan.ports.values()] == [path] * count


def test_endpoints_without_affinity_are_counted_per_address():
    slices = slice_of(*ips(ELEMENTS_MAX // 2))
    assert the_port(service(handling=KERNEL), slices).path.path is DataPath.KERNEL
    wide = {"external_ips": ("203.0.113.1", "203.0.113.2")}
    why = "its endpoints, counted for each port and address, are more than 20,000"
    port = the_port(service(handling=KERNEL, **wide), slices, **OUTSIDE)
    assert port.path[:2] == (DataPath.USERSPACE, why)
    assert port.notes[0] == kernel_path_unused(why)
    port = the_port(service(handling=Handling(path=DataPath.AUTO), **wide), slices, **OUTSIDE)
    assert (port.path.path, port.path.why, port.notes) == (DataPath.USERSPACE, why, ())


@pytest.mark.parametrize(
    ("more", "counted"),
    [
        pytest.param({"handling": KERNEL}, KernelSize(3, 0), id="endpoints"),
        pytest.param(PINNED, KernelSize(3, 12), id="affinity"),
        pytest.param({"handling": HASHED}, KernelSize(128, 0), id="slots"),
        pytest.param(
            {"handling": HASHED, "affinity_timeout_s": 60}, KernelSize(128, 32), id="affinity-slots"
        ),
        pytest.param({}, KernelSize(), id="userspace"),
    ],
)
def test_the_kernel_size_counts_slots_instead_of_endpoints_for_source_hash(more, counted):
    assert size(service(**more), slice_of(*ips(3))) == counted


def test_weighted_endpoints_count_as_coarse_slots_and_additional_slots_for_exact_weights():
    slices = slice_of(*ips(3), Endpoint("192.0.2.9", weight=7))
    assert size(service(handling=KERNEL), slices) == KernelSize(36, 0, 256 - 36)
    assert size(service(handling=HASHED), slices) == KernelSize(128, 0, 4096 - 128)


def test_endpoints_for_outside_clients_are_counted_in_addition():
    given = service(handling=KERNEL, is_external_local=True, external_ips=("203.0.113.1",))
    assert size(given, slice_of(*ips(3)), **OUTSIDE) == KernelSize(3 + 2 * 3, 0)


def test_a_port_without_endpoints_counts_as_zero():
    assert size(service(handling=HASHED, affinity_timeout_s=60)) == KernelSize()


def test_a_family_without_the_kernel_path_counts_as_zero():
    given = service(cluster_ips=(CART_IP, CART_IP_V6), **PINNED)
    slices = (
        slice_of(*ips(3)),
        slice_of("fd00::1", key="six", family=IPFamily.IPV6),
    )
    assert size(given, *slices) == KernelSize(4, 16)
    assert size(given, *slices, no_kernel_path={IPFamily.IPV4: "off"}) == KernelSize(1, 4)


def test_source_ranges_are_counted_for_each_port():
    ports = [ServicePort(f"p{n}", 80 + n, "TCP") for n in range(3)]
    targets = [SlicePort(f"p{n}", 8080 + n, "TCP") for n in range(3)]
    given = service(
        ports=ports,
        handling=KERNEL,
        type=ServiceType.LOAD_BALANCER,
        load_balancer_ips=("192.0.2.9",),
        load_balancer_source_ranges=("203.0.113.0/24", "198.51.100.0/24", "fd00::/8"),
    )
    assert size(given, slice_of(*ips(2), ports=targets)) == KernelSize(2 * 2 * 3, 2 * 3)


@pytest.mark.parametrize(
    ("bound", "of", "fit"),
    [
        pytest.param("NODE_RULES_MAX", KernelSize(rules=10), KernelFit(NO_RULES), id="rules"),
        pytest.param("NODE_ELEMENTS_MAX", KernelSize(10), KernelFit(NO_ELEMENTS), id="elements"),
        pytest.param("NODE_EXACT_MAX", KernelSize(0, 0, 10), KernelFit("", COARSE), id="weights"),
    ],
)
def test_at_the_node_limit_the_last_services_of_an_oversized_namespace_are_omitted(
    monkeypatch, bound, of, fit
):
    monkeypatch.setattr(f"userspace_proxy.plan.kernel_room.{bound}", 20)
    keys = [ServiceKey("bank", "z"), *(ServiceKey("shop", name) for name in "abc")]
    room = KernelRoom()
    assert room.change(dict.fromkeys(keys, of)) == set(keys[2:])
    assert [room.fit(key, of) for key in keys] == [KernelFit(), KernelFit(), fit, fit]
    assert room.change({keys[0]: KernelSize()}) == {keys[2]}


def test_a_service_too_large_for_the_kernel_path_uses_no_room(monkeypatch):
    monkeypatch.setattr("userspace_proxy.plan.kernel_room.NODE_EXACT_MAX", 20)
    room, large = KernelRoom(), KernelSize(10, 0, ELEMENTS_MAX)
    other, fitting = ServiceKey("shop", "other"), KernelSize(10, 0, 20)
    assert room.change({CART: fitting}) == set()
    excess = KernelSize(ELEMENTS_MAX + 1, 0, 30)
    assert room.change({CART: excess, WEB: large, other: fitting}) == set()
    assert room.fit(WEB, large) == KernelFit("", TOO_EXACT)


@pytest.mark.parametrize(
    ("handling", "parts"),
    [pytest.param(HASHED, 128, id="slots"), pytest.param(KERNEL, 33, id="parts")],
)
def test_without_room_for_exact_weights_a_service_gets_coarse_weights_and_a_note(
    monkeypatch, handling, parts
):
    monkeypatch.setattr("userspace_proxy.plan.kernel_room.NODE_EXACT_MAX", 20)
    slices = slice_of(POD_A.ip, Endpoint("192.0.2.9", weight=9_900))
    port = the_port(service(handling=handling), slices)
    assert (port.path.path, port.has_coarse_weights) == (DataPath.KERNEL, True)
    assert port.notes == (weights_coarse(COARSE),)
    (choice,) = choices_of(port.serving, is_coarse=True)
    assert len(choice.endpoints) == parts


def test_a_service_without_kernel_room_is_replanned_once_room_is_free(monkeypatch):
    monkeypatch.setattr("userspace_proxy.plan.kernel_room.NODE_RULES_MAX", 20)
    other = ServiceKey("shop", "other")
    store = store_of(
        service(**PINNED),
        service(other, cluster_ips=("198.51.100.2",), **PINNED),
        slice_of(*ips(3)),
        slice_of(*ips(4), of=other, key="other"),
    )
    planner = Planner(NodeFacts())

    def paths():
        ports = planner.plan(store.snapshot()).ports
        return {str(name): port.path[:2] for name, port in ports.items()}

    asked = "its annotation asks for it"
    assert paths() == {
        "shop/cart:http": (DataPath.KERNEL, asked),
        "shop/other:http": (DataPath.USERSPACE, NO_RULES),
    }
    store.delete_service(CART)
    assert paths() == {"shop/other:http": (DataPath.KERNEL, asked)}


@pytest.mark.parametrize(
    ("handling", "weight", "elements"),
    [
        pytest.param(Handling(), 100, 0, id="not-asked-for"),
        pytest.param(KERNEL, 100, 2 * (3 + 2), id="endpoints"),
        pytest.param(KERNEL, 7, 2 * (3 + 256), id="parts"),
        pytest.param(HASHED, 100, 2 * (3 + 128), id="slots"),
    ],
)
def test_elements_returns_how_many_kernel_elements_a_change_may_write(handling, weight, elements):
    given = service(handling=handling, external_ips=("203.0.113.1",))
    slices = (slice_of(POD_A.ip), slice_of(Endpoint("192.0.2.9", weight=weight), key="other"))
    store = store_of(given, *slices)
    planner = Planner(NodeFacts())
    state = store.snapshot().services[CART]
    assert KernelRoom().elements(state, NodeFacts()) == elements
    assert planner.kernel_elements(state) == 0
    planner.plan(store.snapshot())
    assert planner.kernel_elements(state) == elements


def test_a_kernel_rule_counts_as_the_number_of_elements_that_take_the_same_time():
    slices = (slice_of(POD_A.ip, "192.0.2.9"),)
    ranges = {"load_balancer_source_ranges": ("203.0.113.0/24",)}
    pinned, limited = (
        KernelRoom().elements(ServiceState(service(**given), slices), NodeFacts())
        for given in (PINNED, {"handling": KERNEL, **ranges})
    )
    assert pinned == 2 + 3 + RULE_ELEMENTS * (2 * 4 + 4)
    assert limited == 2 + 3 + RULE_ELEMENTS * (1 + 4)


def test_fewer_elements_are_counted_without_endpoints_or_exact_weights(monkeypatch):
    monkeypatch.setattr("userspace_proxy.plan.kernel_room.NODE_EXACT_MAX", 20)
    weighted = slice_of(Endpoint("192.0.2.9", weight=7)), slice_of(POD_A.ip, key="other")
    room = KernelRoom()
    states = [ServiceState(service(handling=KERNEL), slices) for slices in ((), weighted)]
    assert room.elements(states[0], NodeFacts()) == 0
    exact = room.elements(states[1], NodeFacts())
    room.change({CART: KernelSize(10, 0, 30)})
    assert room.elements(states[1], NodeFacts()) < exact


def test_a_udp_range_requires_the_kernel_path_and_has_rules_per_endpoint():
    dns = ServicePort("dns", 53, "UDP")
    ranged = Handling(port_ranges=(AskedRange("dns", 50, 60),))
    given = service(ports=[dns], handling=ranged, cluster_ips=(CART_IP, WEB_IP))
    listed = slice_of(*ips(3), ports=[SlicePort("dns", 53, "UDP")])
    assert size(service(ports=[dns]), listed) == NO_SIZE
    found = size(given, listed)
    # The port and its range are counted separately, rules only once for both addresses.
    assert (found.elements, found.rules) == (12, 12)
