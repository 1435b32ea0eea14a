from userspace_proxy.facts.edges import EdgeFacts, EdgesFacts
from userspace_proxy.status.edge_families import edge_family
from userspace_proxy.status.exposition import write_families


def edge(client, service, connections, pod=""):
    return EdgeFacts(client=client, client_pod=pod, service=service, connections=connections)


def test_each_client_of_a_service_port_is_a_series_and_the_others_are_one():
    edges = EdgesFacts(
        edges=(
            edge("10.0.0.7", "shop/web:http", 5, "shop/cart-1"),
            edge("fd00::7", "shop/web:http (IPv6)", 2, "shop/cart-1"),
            edge("192.0.2.9", "shop/db", 1),
        ),
        others=3,
    )
    text = write_families([edge_family(edges)], open_metrics=False).decode()
    name = "userspace_proxy_client_connections_total"
    assert text.splitlines()[2:] == [
        f'{name}{{namespace="shop",service="web",port="http",client="shop/cart-1"}} 7',
        f'{name}{{namespace="shop",service="db",client="192.0.2.9"}} 1',
        f'{name}{{client="other"}} 3',
    ]


def test_without_clients_the_others_are_0():
    text = write_families([edge_family(EdgesFacts())], open_metrics=False).decode()
    assert text.endswith('{client="other"} 0\n')
