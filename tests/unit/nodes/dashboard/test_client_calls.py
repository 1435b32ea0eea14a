import msgspec

from userspace_proxy.facts.edges import EdgesFacts
from userspace_proxy_kubectl.nodes.dashboard.client_calls import add_up

from .clusters import CALLS, edges

ALL = {node: msgspec.json.decode(body, type=EdgesFacts) for node, body in CALLS.items()}


def test_calls_of_all_nodes_are_merged_with_the_busiest_first():
    found = add_up(ALL)
    assert [(one.client, one.port, one.connections) for one in found.calls[:2]] == [
        ("shop/front-5d9", "shop/web:http", 900),
        ("shop/front-77c", "shop/web:http", 700),
    ]
    assert (found.others, found.nodes, len(found.calls)) == (3, 3, 6)


def test_a_client_counted_by_two_proxies_is_one_row():
    both = {
        node: msgspec.json.decode(edges((ip, "shop/a", "shop/web:http", 5)), type=EdgesFacts)
        for node, ip in (("node-2", "10.0.0.2"), ("node-1", "10.0.0.1"))
    }
    (one,) = add_up(both).calls
    assert (one.connections, one.nodes) == (10, ("node-1", "node-2"))
    assert (one.addresses, one.is_pod) == (("10.0.0.1", "10.0.0.2"), True)


def test_an_address_without_a_pod_is_listed_as_a_client():
    (one,) = (call for call in add_up(ALL).calls if call.client == "192.0.2.44")
    assert (one.is_pod, one.service) == (False, "shop/web")


def test_a_search_matches_clients_services_and_nodes():
    found = add_up(ALL)
    assert len(found.matching("")) == 6
    assert {one.client for one in found.matching("WEB node-2")} == {"shop/front-77c", "192.0.2.44"}
    assert {one.client for one in found.of_service("shop/search")} == {
        "shop/front-5d9",
        "shop/jobs-1",
    }
