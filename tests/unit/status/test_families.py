import json

import pytest

from tests.port_keys import port_key
from userspace_proxy.causes.services import source_denied
from userspace_proxy.diagnosis.paths import PathView
from userspace_proxy.facts.connection import port_fields
from userspace_proxy.facts.edges import EdgeFacts, EdgesFacts
from userspace_proxy.model import DataPath, Handling, Hold, IPFamily, ServiceKey
from userspace_proxy.status.exposition import write_families
from userspace_proxy.status.families import (
    edge_family,
    families_of,
    path_families,
    render_demand,
    state_label,
)

from .readings import read_samples
from .recorded import changed
from .views import (
    make_calm_view,
    make_endpoint,
    make_port,
    make_view,
    replace,
)

WEB = {
    "namespace": "shop",
    "service": "web",
    "port": "http",
    "protocol": "TCP",
    "family": "IPv4",
}


def samples(view, detail="endpoint"):
    # The list builds all families before the first one is read.
    return read_samples(list(families_of(view, detail)))


def value(view, name, *, detail="endpoint", **labels):
    return samples(view, detail).get((name, tuple(sorted(labels.items()))))


def names(view, detail):
    """Return the names of the Service ports' series at this level of detail."""
    return {name for name, labels in samples(view, detail) if "service" in dict(labels)}


def test_a_service_port_out_of_client_ports_has_no_problem_series():
    view = make_view(make_port(is_out_of_client_ports=True))
    assert "userspace_proxy_service_port_problem" not in names(view, "node")


def test_denied_packets_are_counted_by_cause():
    denied = source_denied(("198.51.100.0/24",)).replace(count=3)
    before = replace(denied, count=2)
    view = make_view(make_port(connections=0, denied=5, turned_away=(denied, before)))
    denied_total = "userspace_proxy_packets_denied_total"
    assert value(view, denied_total, **WEB, cause="source-denied") == 5
    assert value(view, "userspace_proxy_node_packets_denied_total") is not None


def test_an_endpoint_that_no_longer_serves_counts_as_terminating():
    endpoint = make_endpoint("a", "terminating, not serving", False, ejected_for_s=9.0)
    assert state_label(endpoint) == "terminating"


IDLE = dict.fromkeys(("active", "connections", "received_bytes", "sent_bytes"), 0)


def make_idle_port(name, **changes):
    endpoints = tuple(make_endpoint(f"10.244.{n}.7:8080") for n in (1, 2, 3))
    return make_port(name, endpoints=endpoints, **{**IDLE, **changes})


def test_a_service_port_without_clients_has_only_its_endpoint_count():
    view = make_view(make_idle_port("web"))
    assert names(view, "node") == names(view, "service") == set()
    assert names(view, "endpoint") == {"userspace_proxy_endpoints"}
    assert value(view, "userspace_proxy_endpoints", state="ready", **WEB) == 3


@pytest.mark.parametrize("counted", ["connections", "failures", "refused", "shortages"])
def test_the_counters_of_a_service_port_appear_together(counted):
    view = make_view(make_idle_port("web", **{counted: 1}))
    for name in ("connections", "received_bytes", "connections_refused"):
        full = f"userspace_proxy_{name}_total"
        assert value(view, full, detail="service", **WEB) == (name.endswith(counted)), name


def test_no_series_is_duplicated_even_if_the_view_lists_ports_and_endpoints_twice():
    web = make_port(endpoints=(), reason="it has no endpoints")
    twice = make_view(replace(web, endpoints=make_port().endpoints * 2), web, web)
    twice = replace(twice, workers=make_calm_view().workers * 2)
    made = [
        f"{family.name}{labels}"
        for family in families_of(twice, "endpoint")
        for labels, _ in family.samples
    ]
    assert len(made) == len(set(made))


def test_all_metrics_have_a_known_prefix_and_a_help_text():
    for family in families_of(make_calm_view(), "endpoint"):
        assert family.name.startswith(("userspace_proxy_", "kubeproxy_sync_proxy_rules_"))
        assert family.help


WEB_LABELS, CART_LABELS = '{service="web"}', '{service="cart"}'


def path_value(ports, name, **labels):
    found = read_samples(path_families(ports))
    return found.get((f"userspace_proxy_{name}", tuple(sorted(labels.items()))))


def test_a_port_that_left_the_kernel_path_has_its_connection_series():
    ports = {
        WEB_LABELS: replace(make_port(), path=PathView(DataPath.KERNEL, kernel_connections=0)),
        CART_LABELS: replace(make_port("cart"), path=PathView(kernel_connections=12)),
    }
    name = "kernel_path_connections_total"
    assert path_value(ports, name, service="web") is None
    assert path_value(ports, name, service="cart") == 12
    path = "service_port_path"
    assert path_value(ports, path, service="web", path="kernel") == 1
    assert path_value(ports, path, service="cart", path="userspace") is None


def edge(client, key, connections, pod=""):
    port = port_fields(key)
    return EdgeFacts(client=client, client_pod=pod, connections=connections, **port)


def test_each_listed_client_has_a_series_and_all_other_clients_share_a_series():
    edges = EdgesFacts(
        edges=(
            edge("10.0.0.7", port_key("shop/web:http"), 5, "shop/cart-1"),
            edge("fd00::7", port_key("shop/web:http", IPFamily.IPV6), 2, "shop/cart-1"),
            edge("192.0.2.9", port_key("shop/db"), 1),
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


def test_the_series_for_other_clients_is_zero_without_clients():
    text = write_families([edge_family(EdgesFacts())], open_metrics=False).decode()
    assert text.endswith('{client="other"} 0\n')


HOLDING = Handling(hold=Hold(60.0))


def holding_view():
    ports = (make_port("web", handling=HOLDING), make_port("api", handling=HOLDING), make_port("b"))
    return make_view(*ports, demand={ServiceKey("shop", "web"): 3})


def test_the_demand_response_includes_known_cluster_wide_sums():
    one = holding_view()
    one.cluster_demand = {ServiceKey("shop", "web"): 7, ServiceKey("live", "api"): 0}
    assert json.loads(render_demand(one)) == {
        "demand": {"shop": {"api": 0, "web": 3}},
        "cluster": {"shop": {"web": 7}, "live": {"api": 0}},
    }


def test_metrics_match_the_recorded_text(tmp_path):
    assert changed(tmp_path, "metrics", "demand") == []
