"""Tests of which Services are omitted from a namespace with too many endpoints or frontends."""

from userspace_proxy.causes.cause import CauseCode
from userspace_proxy.model import ServiceKey, ServicePort
from userspace_proxy.plan import Planner
from userspace_proxy.policy import NodeFacts

from ..model.samples import CART, POD_A, WEB, service, slice_of
from .planning import store_of

ELSEWHERE = ServiceKey("bank", "large-0")


def test_services_of_a_namespace_with_too_many_endpoints_are_omitted_largest_first(monkeypatch):
    for of, limit in (("SERVICE", 100), ("NAMESPACE", 101)):
        monkeypatch.setattr(f"userspace_proxy.plan.planner.ENDPOINTS_OF_{of}_MAX", limit)
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


def test_services_of_a_namespace_with_too_many_ports_are_omitted_largest_first(monkeypatch):
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
