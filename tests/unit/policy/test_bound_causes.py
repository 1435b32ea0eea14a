from userspace_proxy.model import CauseCode
from userspace_proxy.policy.bound_causes import (
    and_more,
    too_many_at_all_ports,
    too_many_endpoints,
    too_many_external_ips,
    too_many_frontends,
    too_many_frontends_in_namespace,
    too_many_in_namespace,
)
from userspace_proxy.policy.causes import not_ours

from ..model.samples import CART


def test_too_many_external_ips_name_the_first_one_the_bound_and_a_remedy():
    cause = too_many_external_ips("203.0.113.7", 100)
    assert (cause.code, cause.object) == (CauseCode.EXTERNAL_IP_OFF, "203.0.113.7")
    assert str(cause) == (
        "external IP 203.0.113.7 and those after it are not served: "
        "a Service with as many ports may have 100"
    )
    assert "Divide" in cause.hint


def test_too_many_endpoints_are_a_cause_with_the_bound_and_a_remedy():
    cause = too_many_endpoints(10_000)
    assert cause.code is CauseCode.TOO_MANY_ENDPOINTS
    assert str(cause) == "it has more than 10,000 endpoints, and the others are left out"
    assert "10,000 endpoints" in cause.hint


def test_too_many_endpoints_of_all_ports_name_the_service_or_the_namespace_the_bound_and_a_remedy():
    service, namespace = too_many_at_all_ports(CART, 500), too_many_in_namespace("shop", 5_000)
    assert {service.code, namespace.code} == {CauseCode.TOO_MANY_ENDPOINTS}
    assert "the ports of shop/cart together have more than 500 endpoints" in str(service)
    assert "namespace shop together have more than 5,000 endpoints" in str(namespace)
    assert (service.object, namespace.object) == ("shop/cart", "namespace shop")
    assert service.hint
    assert namespace.hint


def test_too_many_frontends_name_the_ports_that_are_left_out():
    alone, some = too_many_frontends(CART, 10_000, 1), too_many_frontends(CART, 10_000, 1_200)
    assert alone.code is some.code is CauseCode.TOO_MANY_FRONTENDS
    assert str(alone).endswith(": this port is not served")
    assert str(some).endswith(": this port and the 1,199 after it, by name, are not served")
    assert "more than 10,000 frontends" in str(some)


def test_too_many_frontends_of_a_namespace_name_it():
    cause = too_many_frontends_in_namespace("shop", 40_000)
    assert cause.code is CauseCode.TOO_MANY_FRONTENDS
    assert cause.object == "namespace shop"
    assert "the Services of namespace shop together have more than 40,000 frontends" in str(cause)


def test_a_cause_for_further_ports_counts_them():
    cause = and_more(not_ours("protocol SCTP is not supported"), 1_200)
    assert str(cause) == "protocol SCTP is not supported; 1,200 more like this are not listed"
