from dataclasses import replace

import pytest

from userspace_proxy.kernel.bpf.objects import MapSpec
from userspace_proxy.model import Frontend, Protocol, SocketAddress
from userspace_proxy.steering.base import REFUSE, Affinity, EndpointChoice, KernelTarget
from userspace_proxy.steering.socket_lb.desired import (
    COUNTERS,
    FRONTENDS4,
    FRONTENDS6,
    SLOTS,
    SLOTS_MAX,
    DesiredHooks,
    FoundService,
    Room,
    not_offloaded_reason,
    spread,
)
from userspace_proxy.steering.socket_lb.socket_maps import (
    EjectionScope,
    FrontendValue,
    SlotValue,
    frontend_key,
    number_key,
    number_of,
    pinned_slot_key,
    slot_key,
)

from ...kept import kept_by

WEB = Frontend("10.96.0.1", 80, Protocol.TCP)
NODE_PORT = Frontend("192.0.2.1", 30080, Protocol.TCP)
CART = Frontend("10.96.0.2", 80, Protocol.TCP)
WEB_6 = Frontend("fd00:10:96::1", 80, Protocol.TCP)
A, B, C = (SocketAddress(f"10.244.1.{n}", 8080) for n in (1, 2, 3))
A_6 = SocketAddress("fd00:10:244::1", 8080)
PINNED = Affinity("shop/web", 60)


def to(*endpoints, name="shop/web", affinity=None):
    return KernelTarget(20000, (EndpointChoice(endpoints),), affinity, name=name)


def hooks(**room):
    return DesiredHooks(Room(**{"frontends": 100, "slots": 100, "endpoints": 100, **room}))


def led(desired, frontend):
    """Return the service and the slots of a frontend from the elements."""
    name = FRONTENDS6 if ":" in frontend.ip else FRONTENDS4
    value = FrontendValue.unpack(desired.elements[name][frontend_key(frontend.address)])
    slots = desired.elements[SLOTS]
    return value, [SlotValue.unpack(slots[slot_key(value.number, at)]) for at in range(value.slots)]


def endpoints(desired, frontend):
    return [slot.address for slot in led(desired, frontend)[1]]


@pytest.mark.parametrize(
    ("frontend", "target", "why"),
    [
        (WEB, to(A), ""),
        (WEB_6, to(A_6), ""),
        (WEB, None, "it isn't on the kernel path"),
        (WEB, 20000, "it isn't on the kernel path"),
        (WEB, REFUSE, "it isn't on the kernel path"),
        (WEB, replace(to(A), is_on=False), "it isn't on the kernel path"),
        (
            Frontend("10.96.0.1", 53, Protocol.UDP),
            to(A),
            "a socket of UDP would stay with its endpoint when that is gone",
        ),
        (Frontend("10.96.0.1", 80, Protocol.TCP, last=90), to(A), "it is a range of ports"),
        (
            WEB,
            to(A, affinity=Affinity("shop/web", 60, is_of_pods=True)),
            "it shares affinity entries with other ports",
        ),
        (WEB, KernelTarget(20000), "it has no endpoint"),
        (WEB, replace(to(A), by_client=True), "its clients' addresses choose the endpoint"),
        (
            WEB,
            KernelTarget(20000, (EndpointChoice((A,), ("10.0.0.0/8",)),)),
            "its clients' addresses decide who may use which endpoint",
        ),
        (WEB, to(A, A_6), "an endpoint is of another family"),
        (
            WEB,
            to(A, SocketAddress("127.0.0.1", 80)),
            "127.0.0.1 is another host for each network namespace",
        ),
        (
            Frontend("fe80::1", 30080, Protocol.TCP),
            to(A_6),
            "fe80::1 is another host for each network namespace",
        ),
        (WEB, to(*[A] * SLOTS_MAX), ""),
        (WEB, to(*[A] * (SLOTS_MAX + 1)), f"it has more than {SLOTS_MAX} endpoints, by weight"),
    ],
)
def test_only_kernel_path_frontends_that_need_no_rules_are_offloaded(frontend, target, why):
    assert not_offloaded_reason(frontend, target) == why


def test_the_reason_why_a_frontend_is_not_offloaded_changes_with_its_target():
    desired = hooks()
    desired.replace({WEB: to(A), CART: KernelTarget(20001)})
    assert desired.not_offloaded(WEB) == ""
    desired.replace({WEB: KernelTarget(20000)})
    assert desired.not_offloaded(WEB) == "it has no endpoint"
    assert desired.not_offloaded(CART) == "it isn't on the kernel path"
    assert desired.frontends == 0


def test_leaving_returns_only_hooked_frontends_that_leave_the_kernel_path():
    desired = hooks()
    desired.replace({WEB: to(A), CART: to(A, name="shop/cart")})
    affected = {WEB: to(B), CART: REFUSE, NODE_PORT: REFUSE}
    assert desired.leaving(affected) == {CART: REFUSE}


def test_a_target_that_is_only_switched_off_does_not_leave_the_hooks_before_the_rules():
    desired = hooks()
    desired.replace({WEB: to(A, B)})
    off = replace(to(A, B), is_on=False)
    assert desired.leaving({WEB: off}) == {}
    others = (replace(off, choices=(EndpointChoice((A,)),)), replace(off, by_client=True), 20000)
    for target in others:
        assert desired.leaving({WEB: target}) == {WEB: target}


def test_repeated_endpoints_are_spread_evenly_over_the_slots():
    assert spread((A, B, C)) == (A, B, C)
    assert spread((A, A, A, A, B)) == (A, A, B, A, A)


def test_frontends_of_a_service_port_share_slots():
    desired = hooks()
    desired.replace({WEB: to(A, B), NODE_PORT: to(A, B), WEB_6: to(A_6)})
    assert led(desired, WEB) == led(desired, NODE_PORT)
    assert endpoints(desired, WEB) == [A, B]
    assert endpoints(desired, WEB_6) == [A_6]
    assert len(desired.elements[SLOTS]) == 3
    assert {desired.at[slot.number] for slot in led(desired, WEB)[1]} == {
        ("shop/web", A),
        ("shop/web", B),
    }


def test_service_ports_have_separate_numbers_for_the_same_endpoint():
    desired = hooks()
    desired.replace({WEB: to(A), CART: to(A, name="shop/cart")})
    (web,), (cart,) = led(desired, WEB)[1], led(desired, CART)[1]
    assert web.number != cart.number
    assert desired.number_of(("shop/cart", A)) == cart.number


def test_a_changed_frontend_has_a_new_service_in_which_remaining_endpoints_keep_their_numbers():
    desired = hooks()
    desired.replace({WEB: to(A, B), CART: to(A, name="shop/cart")})
    before, slots = led(desired, WEB)
    edits = desired.change({WEB: to(B, C)})
    after, new_slots = led(desired, WEB)
    assert after.number not in {before.number, led(desired, CART)[0].number}
    assert new_slots[0] == slots[1]
    assert edits.put[SLOTS].keys() == {slot_key(after.number, at) for at in (0, 1)}
    assert list(edits.put[FRONTENDS4]) == [frontend_key(WEB.address)]
    assert list(edits.put[COUNTERS]) == [number_key(new_slots[1].number)]
    assert edits.removed == {SLOTS: [slot_key(before.number, at) for at in (0, 1)]}


def test_an_unchanged_target_makes_no_edits():
    desired = hooks()
    wanted = {WEB: to(A, B), NODE_PORT: to(A, B)}
    desired.replace(wanted)
    edits = desired.replace(wanted)
    assert (edits.put, edits.removed, edits.readmitted) == ({}, {}, [])


def test_shared_slots_stay_until_the_last_frontend_is_removed():
    desired = hooks()
    desired.replace({WEB: to(A), NODE_PORT: to(A)})
    assert SLOTS not in desired.change({WEB: None}).removed
    edits = desired.change({NODE_PORT: None})
    assert len(edits.removed[SLOTS]) == 1
    assert edits.removed[FRONTENDS4] == [frontend_key(NODE_PORT.address)]
    assert not any(desired.elements.values())


def test_an_endpoint_that_returns_before_it_is_forgotten_has_its_old_number():
    desired = hooks()
    desired.replace({WEB: to(A, A, B)})
    number = desired.number_of(("shop/web", B))
    edits = desired.change({WEB: to(A)})
    assert desired.next_without_service(9) == [number]
    # Endpoint B loses its ejection but keeps its counters, which open connections still change.
    assert (COUNTERS in edits.removed, edits.readmitted) == (False, [EjectionScope(number).pack()])
    desired.change({WEB: to(A, B)})
    assert desired.number_of(("shop/web", B)) == number
    assert desired.next_without_service(9) == []


def test_removed_endpoints_are_returned_in_turns_for_a_check():
    desired = hooks()
    desired.replace({WEB: to(A, B, C)})
    numbers = {desired.number_of(("shop/web", one)) for one in (A, B, C)}
    assert desired.without_service == 0
    desired.change({WEB: None})
    assert desired.without_service == 3
    looked = [number for _ in range(3) for number in desired.next_without_service(2)]
    assert looked == looked[:3] * 2
    assert {*looked} == numbers
    desired.forget(looked[:2])
    assert desired.next_without_service(2) == [looked[2]]


def test_a_forgotten_endpoint_number_is_never_reused():
    desired = hooks()
    desired.replace({WEB: to(A, B)})
    gone = desired.number_of(("shop/web", B))
    desired.change({WEB: to(A)})
    edits = desired.forget(desired.next_without_service(9))
    assert edits.removed == {COUNTERS: [number_key(gone)]}
    assert edits.readmitted == [EjectionScope(gone).pack()]
    assert gone not in desired.at
    desired.change({WEB: to(A, B)})
    assert desired.number_of(("shop/web", B)) > gone


def test_slots_with_affinity_are_also_indexed_by_endpoint_number():
    desired = hooks()
    desired.replace({WEB: to(A, B, affinity=PINNED)})
    value, slots = led(desired, WEB)
    assert value.timeout_s == 60
    assert value.affinity not in {0, *(slot.number for slot in slots)}
    elements = desired.elements[SLOTS]
    assert elements.keys() == {
        *(slot_key(value.number, at) for at in (0, 1)),
        *(pinned_slot_key(value.number, slot.number) for slot in slots),
    }
    edits = desired.change({WEB: None})
    assert len(edits.removed[SLOTS]) == 4


def test_affinity_survives_a_change_of_endpoints_and_is_per_family():
    desired = hooks()
    desired.replace({WEB: to(A, affinity=PINNED), WEB_6: to(A_6, affinity=PINNED)})
    before = led(desired, WEB)[0].affinity
    assert led(desired, WEB_6)[0].affinity != before
    for other in (B, C):
        desired.change({WEB: to(other, affinity=PINNED)})
        assert led(desired, WEB)[0].affinity == before


def test_removed_frontends_leave_no_state_behind():
    desired = hooks()
    before = kept_by(desired)
    desired.replace({WEB: to(A, affinity=PINNED), CART: 20000})
    desired.change({WEB: None, CART: to(B)})
    desired.change({CART: None})
    desired.forget(desired.next_without_service(9))
    assert kept_by(desired) == before


def found_of(desired, *frontends):
    found = {}
    for frontend in frontends:
        value, slots = led(desired, frontend)
        found[frontend.address] = FoundService(value, tuple(slots))
    services = {number_of(key) >> 32 for key in desired.elements[SLOTS]}
    return found, services, desired.next_number


def test_endpoint_numbers_and_services_of_an_earlier_process_are_kept():
    earlier = hooks()
    wanted = {
        WEB: to(A, B, affinity=PINNED),
        NODE_PORT: to(A, B, affinity=PINNED),
        WEB_6: to(A_6),
        CART: to(A, name="shop/cart"),
    }
    earlier.replace(dict(reversed(wanted.items())))
    desired = hooks()
    desired.adopt(*found_of(earlier, *wanted))
    desired.replace(wanted)
    assert desired.elements == earlier.elements
    assert desired.at == earlier.at
    assert desired.next_number == earlier.next_number
    assert kept_by(desired) == kept_by(earlier)


def test_an_adopted_service_that_has_changed_has_an_unused_number_and_keeps_endpoint_numbers():
    earlier = hooks()
    earlier.replace({WEB: to(A, B), CART: to(A, name="shop/cart")})
    desired = hooks()
    desired.adopt(*found_of(earlier, WEB, CART))
    desired.replace({WEB: to(B, C), CART: to(A, name="shop/cart")})
    assert led(desired, CART) == led(earlier, CART)
    assert led(desired, WEB)[0].number not in {
        led(earlier, frontend)[0].number for frontend in (WEB, CART)
    }
    assert desired.number_of(("shop/web", B)) == earlier.number_of(("shop/web", B))
    assert desired.number_of(("shop/web", C)) == earlier.next_number
    assert desired.next_without_service(9) == [earlier.number_of(("shop/web", A))]


def test_numbers_of_an_earlier_process_are_not_reused_if_its_counter_is_too_low():
    earlier = hooks()
    earlier.replace({WEB: to(A, B, affinity=PINNED)})
    found, services, next_number = found_of(earlier, WEB)
    desired = hooks()
    desired.adopt(found, services, 1)
    cart = Affinity("shop/cart", 60)
    desired.replace({WEB: to(A, B, C, affinity=PINNED), CART: to(A, affinity=cart)})
    assert desired.number_of(("shop/web", C)) >= next_number
    assert led(desired, CART)[0].affinity >= next_number
    assert [desired.at[earlier.number_of(("shop/web", one))][1] for one in (A, B)] == [A, B]


@pytest.mark.parametrize("other", [to(A, name="shop/cart"), to(A, affinity=PINNED)])
def test_a_frontend_with_another_service_or_affinity_has_its_own_numbers(other):
    earlier = hooks()
    earlier.replace({WEB: to(A), NODE_PORT: to(A)})
    desired = hooks()
    desired.adopt(*found_of(earlier, WEB, NODE_PORT))
    desired.replace({WEB: to(A), NODE_PORT: other})
    assert desired.number_of(("shop/web", A)) != desired.number_of(("shop/cart", A))
    assert led(desired, WEB)[0].number != led(desired, NODE_PORT)[0].number


def test_only_half_of_each_map_may_be_filled():
    maps = {name: MapSpec(1, 8, 8, size) for name, size in MAP_SIZES.items()}
    assert Room.of(maps) == Room(frontends=50, slots=20, endpoints=10)


MAP_SIZES = {FRONTENDS4: 100, SLOTS: 40, COUNTERS: 20}


@pytest.mark.parametrize("room", [{"frontends": 1}, {"slots": 5}, {"endpoints": 1}])
def test_a_service_that_exceeds_the_room_in_the_maps_is_not_offloaded(room):
    desired = hooks(**room)
    desired.replace({WEB: to(A, A), CART: to(A, B, name="shop/cart", affinity=PINNED)})
    assert desired.not_offloaded(WEB) == ""
    assert desired.not_offloaded(CART) == "the maps of the hooks are full"
    assert len(desired.elements[SLOTS]) == 2
    desired.change({WEB: None})
    desired.forget(desired.next_without_service(9))
    assert desired.change({CART: to(A, name="shop/cart")}).put
