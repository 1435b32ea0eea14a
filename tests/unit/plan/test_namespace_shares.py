"""Which Services of a namespace are left out because it has too many endpoints, or frontends."""

from userspace_proxy.causes.cause import CauseCode
from userspace_proxy.model import ServiceKey, ServicePort
from userspace_proxy.plan import Planner
from userspace_proxy.plan.namespace_shares import (
    FRONTENDS_OF_NAMESPACE_MAX,
    FRONTENDS_OF_SERVICE_MAX,
    NAMESPACE_MAX,
    SERVICE_MAX,
    NamespaceShares,
    ServiceCounts,
)
from userspace_proxy.policy import NodeFacts

from ..model.samples import CART, POD_A, WEB, service, slice_of
from .planning import store_of

SMALL, ELSEWHERE = ServiceKey("shop", "small"), ServiceKey("bank", "large-0")
FIT = NAMESPACE_MAX // SERVICE_MAX
LARGE = [ServiceKey("shop", f"large-{number:02}") for number in range(2 * FIT)]


def endpoint_shares():
    return NamespaceShares(SERVICE_MAX, NAMESPACE_MAX)


def left_out(shares):
    return [key for key in (SMALL, ELSEWHERE, *LARGE) if shares.is_left_out(key)]


def test_below_the_bound_of_a_namespace_all_services_are_served():
    shares = endpoint_shares()
    assert shares.change((), dict.fromkeys(LARGE[:FIT], SERVICE_MAX)) == set()
    assert left_out(shares) == []


def test_at_twice_the_bound_the_largest_services_are_left_out_and_no_other_namespace_is_affected():
    shares = endpoint_shares()
    counts = {SMALL: 20, ELSEWHERE: SERVICE_MAX, **dict.fromkeys(LARGE, SERVICE_MAX)}
    assert shares.change((), counts) == set(LARGE[FIT - 1 :])
    assert left_out(shares) == LARGE[FIT - 1 :]


def test_a_namespace_whose_services_are_gone_is_no_longer_counted():
    counts = ServiceCounts()
    assert counts.change((), {SMALL: 2, ELSEWHERE: 3}) == {"shop", "bank"}
    assert counts.change([SMALL, CART], {SMALL: 5}) == {"shop"}
    assert (counts.totals, counts.total) == ({"bank": 3}, 3)


def test_of_a_service_no_more_counts_than_it_may_have():
    shares = endpoint_shares()
    assert shares.change((), {SMALL: 20, LARGE[0]: 3 * NAMESPACE_MAX}) == set()


def test_services_that_shrink_or_are_gone_leave_room_for_others():
    shares = endpoint_shares()
    shares.change((), dict.fromkeys(LARGE[: FIT + 2], SERVICE_MAX))
    assert left_out(shares) == LARGE[FIT : FIT + 2]
    assert shares.change((), {LARGE[0]: 0}) == {LARGE[FIT]}
    assert shares.change([LARGE[1]], {}) == {LARGE[FIT + 1]}
    assert left_out(shares) == []


def test_a_service_that_is_left_out_and_gone_is_not_left_out_any_more():
    shares = endpoint_shares()
    shares.change((), dict.fromkeys(LARGE[: FIT + 1], SERVICE_MAX))
    assert shares.change(LARGE, {}) == {LARGE[FIT]}
    assert left_out(shares) == []
    assert shares.change((), {LARGE[FIT]: SERVICE_MAX}) == set()


def test_which_ones_are_left_out_does_not_depend_on_the_order_in_which_they_came():
    one, other = endpoint_shares(), endpoint_shares()
    for number, key in enumerate(LARGE):
        one.change((), {key: SERVICE_MAX - number})
    for number, key in reversed(list(enumerate(LARGE))):
        other.change((), {key: SERVICE_MAX - number})
    assert left_out(one) == left_out(other) == LARGE[:FIT]


def test_services_of_a_namespace_with_too_many_endpoints_are_left_out_largest_first(monkeypatch):
    for name, limit in (("SERVICE_MAX", 100), ("NAMESPACE_MAX", 101)):
        monkeypatch.setattr(f"userspace_proxy.plan.planner.{name}", limit)
    elsewhere = ServiceKey("bank", "web")
    pods = [f"192.0.2.{number}" for number in range(100)]
    keys = [CART, WEB, elsewhere, ServiceKey("shop", "small")]
    store = store_of(
        *(service(key, cluster_ips=(f"198.51.100.{n}",)) for n, key in enumerate(keys, 1)),
        *(slice_of(*pods, of=key, key=key.name) for key in keys[:3]),
        slice_of(POD_A.ip, of=keys[3], key="small"),
    )
    planner = Planner(NodeFacts())
    plan = planner.plan(store.snapshot())
    causes = {str(key): port.cause and port.cause.code for key, port in plan.ports.items()}
    assert causes == {
        "bank/web:http": None,
        "shop/cart:http": None,
        "shop/small:http": None,
        "shop/web:http": CauseCode.TOO_MANY_ENDPOINTS,
    }
    store.put_slice(slice_of(*pods[:99], of=CART, key="cart"))
    assert planner.plan(store.snapshot()) == Planner(NodeFacts()).plan(store.snapshot())
    store.delete_service(CART)
    assert not any(port.cause for port in planner.plan(store.snapshot()).ports.values())


def many_ports(key, count, number):
    ports = tuple(ServicePort(f"p{n:03}", 1 + n, "TCP") for n in range(count))
    return service(key, ports=ports, cluster_ips=(f"198.51.100.{number}",))


def test_services_of_a_namespace_with_too_many_ports_are_left_out_largest_first(monkeypatch):
    monkeypatch.setattr("userspace_proxy.plan.planner.FRONTENDS_OF_NAMESPACE_MAX", 101)
    store = store_of(many_ports(WEB, 100, 1), many_ports(CART, 2, 2), many_ports(ELSEWHERE, 100, 3))
    planner = Planner(NodeFacts())
    plan = planner.plan(store.snapshot())
    assert {key.name.service for key in plan.ports} == {CART, ELSEWHERE}
    (left_out,) = plan.ignored
    assert (left_out.service, left_out.port, left_out.is_conflict) == (WEB, "", True)
    assert left_out.cause.code is CauseCode.TOO_MANY_FRONTENDS
    store.put_service(many_ports(CART, 1, 2))
    plan = planner.plan(store.snapshot())
    assert plan == Planner(NodeFacts()).plan(store.snapshot())
    assert len(plan.ports) == 201
    assert not plan.ignored
    store.put_service(many_ports(CART, 3, 2))
    assert len(planner.plan(store.snapshot()).ports) == 103
    store.delete_service(CART)
    assert len(planner.plan(store.snapshot()).ports) == 200


def test_shares_of_frontends_have_bounds_of_their_own():
    shares = NamespaceShares(FRONTENDS_OF_SERVICE_MAX, FRONTENDS_OF_NAMESPACE_MAX)
    assert shares.change((), dict.fromkeys(LARGE[:3], 10 * SERVICE_MAX)) == set()
    assert shares.change((), {SMALL: 1}) == {LARGE[2]}
