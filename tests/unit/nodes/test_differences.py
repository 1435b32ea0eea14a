from tests.unit.status.views import make_endpoint, make_frontend, make_port, replace
from userspace_proxy.model import Side
from userspace_proxy_kubectl.nodes.differences import differences

ADDRESS = make_frontend("10.96.0.10:80", "ClusterIP", "")
A, B, C = "10.244.1.1:8080", "10.244.2.2:8080", "10.244.3.3:8080"


def web(*endpoints, frontends=(ADDRESS,), **changes):
    made = [one if not isinstance(one, str) else make_endpoint(one) for one in endpoints]
    return make_port("web", frontends=frontends, endpoints=tuple(made), **changes)


def said(planned, there):
    return [str(one) for one in differences(planned, there)]


def test_the_order_of_endpoints_makes_no_difference():
    assert said([web(A, B)], [web(B, A)]) == []


def test_missing_and_surplus_endpoints_and_addresses_are_named():
    kept = make_frontend("203.0.113.9:80", "LoadBalancer", "")
    assert said([web(A, B)], [web(B, C, frontends=(ADDRESS, kept))]) == [
        "shop/web:http (IPv4): it lacks 10.244.1.1:8080; "
        "it still has 203.0.113.9:80 and 10.244.3.3:8080"
    ]


def test_an_endpoint_with_a_different_state_is_named():
    there = web(A, make_endpoint(B, "not ready", is_usable=False))
    assert said([web(A, B)], [there]) == [
        'shop/web:http (IPv4): 10.244.2.2:8080 is "not ready" there, "ready" as planned'
    ]


def test_node_specific_frontends_and_endpoint_states_make_no_difference():
    own = make_frontend("192.0.2.7:30080", "NodePort", "")
    elsewhere = make_endpoint(B, "not on this node", is_usable=False)
    ejected = make_endpoint(A, ejected_for_s=20.0)
    planned = web(A, B, make_endpoint(C, "not on this node", is_usable=False))
    assert said([planned], [web(ejected, elsewhere, C, frontends=(ADDRESS, own))]) == []


def test_missing_and_surplus_service_ports_are_named():
    tls = replace(web(A), port="tls")
    assert said([web(A), tls], [web(A)]) == ["it lacks shop/web:tls (IPv4)"]
    external = web(A, side=Side.EXTERNAL)
    assert said([web(A)], [web(A), external]) == ["it still has shop/web:http (IPv4, external)"]


def test_only_the_first_three_endpoints_are_named():
    many = [f"10.244.9.{number}:8080" for number in range(1, 8)]
    (line,) = said([web(*many)], [web()])
    assert line.endswith("it lacks 10.244.9.1:8080, 10.244.9.2:8080, 10.244.9.3:8080 and 4 others")
    there = web(*(make_endpoint(one, "not ready", is_usable=False) for one in many))
    (line,) = said([web(*many)], [there])
    assert line.endswith(" as planned; 4 more differ")
    assert (many[0] in line, many[-1] in line) == (True, False)
