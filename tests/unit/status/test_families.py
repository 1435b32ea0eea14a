import json

import msgspec
import pytest

from tests.port_keys import port_key
from userspace_proxy.causes.cause import CauseCode
from userspace_proxy.causes.services import source_denied
from userspace_proxy.diagnosis.paths import PathView
from userspace_proxy.facts import Times, TotalsFacts, Waits
from userspace_proxy.facts.connection import port_fields
from userspace_proxy.facts.edges import EdgeFacts, EdgesFacts
from userspace_proxy.model import DataPath, Handling, Hold, IPFamily, ServiceKey
from userspace_proxy.status.exposition import write_families
from userspace_proxy.status.families import (
    demand_of,
    edge_family,
    families_of,
    path_families,
    render_demand,
    state_label,
)

from .readings import read_samples
from .views import (
    make_calm_view,
    make_endpoint,
    make_ignored,
    make_port,
    make_troubled_view,
    make_two_sides,
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
    # A list, so that all families exist before the first one is read.
    return read_samples(list(families_of(view, detail)))


def value(view, name, *, detail="endpoint", **labels):
    return samples(view, detail).get((name, tuple(sorted(labels.items()))))


def names(view, detail):
    """Return the names of the series that a Service port has."""
    return {name for name, labels in samples(view, detail) if "service" in dict(labels)}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("connections_total", 36_407),
        ("connections_active", 12),
        ("connections_refused_total", 0),
        ("received_bytes_total", 96_400_000),
        ("sent_bytes_total", 2_400_000_000),
        ("usable_endpoints", 2),
    ],
)
def test_a_service_port_has(name, expected):
    assert value(make_view(make_port()), f"userspace_proxy_{name}", **WEB) == expected


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        pytest.param({"problem": "port 80 is in use"}, "not-listening", id="not-served"),
        pytest.param({"endpoints": (), "reason": "it has no endpoints"}, "not-ready", id="refused"),
        pytest.param({"admits": (), "reason": "1 not on this node"}, "not-ready", id="dropped"),
        pytest.param({"is_out_of_ports": True}, "out-of-ports", id="out-of-ports"),
    ],
)
@pytest.mark.parametrize("detail", ["node", "service", "endpoint"])
def test_a_service_port_has_a_problem_where_its_clients_are_not_served(changes, reason, detail):
    view = make_view(make_port(**changes), make_port("cart"))
    problem = "userspace_proxy_service_port_problem"
    found = {
        labels: one for (name, labels), one in samples(view, detail).items() if name == problem
    }
    assert found == {tuple(sorted({**WEB, "reason": reason}.items())): 1}


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param(
            {"reason": "1 not on this node", "outside": ()}, id="outside-dropped-on-purpose"
        ),
        pytest.param({"is_out_of_client_ports": True}, id="out-of-client-ports"),
    ],
)
def test_a_service_port_has_no_problem_where_its_clients_are_served(changes):
    assert "userspace_proxy_service_port_problem" not in names(
        make_view(make_port(**changes)), "node"
    )


def test_a_service_whose_address_is_taken_has_a_problem():
    view = make_view(ignored=(make_ignored("shop/cart", "80", "taken", is_conflict=True),))
    where = {"namespace": "shop", "service": "cart", "port": "80", "reason": "address-taken"}
    assert value(view, "userspace_proxy_service_port_problem", **where) == 1
    assert "userspace_proxy_service_ignored" not in names(view, "service")


def test_clients_that_are_turned_away_are_counted_by_cause():
    denied = source_denied(("198.51.100.0/24",)).replace(count=3)
    before = replace(denied, count=2)
    view = make_view(make_port(connections=0, denied=5, turned_away=(denied, before)))
    denied_total = "userspace_proxy_packets_denied_total"
    assert value(view, denied_total, **WEB, cause="source-denied") == 5
    assert value(view, "userspace_proxy_node_packets_denied_total") is not None


def test_a_service_that_is_ignored_by_design_is_no_problem():
    view = make_view(ignored=(make_ignored("shop/db", "", "it is headless"),))
    where = {"namespace": "shop", "service": "db", "reason": "not-ours"}
    assert value(view, "userspace_proxy_service_ignored", **where) == 1
    assert "userspace_proxy_service_port_problem" not in names(view, "service")
    assert "userspace_proxy_service_ignored" not in names(view, "node")


def test_what_ended_early_and_what_found_no_port_is_counted():
    view = make_view(make_port(evicted=8, evicted_for_memory=3, shortages=2))
    assert value(view, "userspace_proxy_connections_evicted_total", **WEB) == 8
    assert value(view, "userspace_proxy_connections_evicted_for_memory_total", **WEB) == 3
    assert value(view, "userspace_proxy_local_shortages_total", **WEB) == 2


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("connections_total", 18_204),
        ("connections_active", 7),
        ("received_bytes_total", 48_300_000),
        ("sent_bytes_total", 1_220_000_000),
        ("ejected", 0),
    ],
)
def test_an_endpoint_has(name, expected):
    web = make_port()
    labels = {**WEB, "endpoint": str(web.plan.verdicts[0].address)}
    assert value(make_view(web), f"userspace_proxy_endpoint_{name}", **labels) == expected


@pytest.mark.parametrize(
    ("endpoint", "expected"),
    [
        pytest.param(make_endpoint("a", "ready", True), "ready", id="ready"),
        pytest.param(make_endpoint("a", "not ready", False), "not_ready", id="not-ready"),
        pytest.param(make_endpoint("a", "terminating", True), "terminating", id="terminating"),
        pytest.param(
            make_endpoint("a", "terminating, not serving", False), "terminating", id="not-serving"
        ),
        pytest.param(make_endpoint("a", "ready", True, ejected_for_s=0.0), "ejected", id="ejected"),
        pytest.param(
            make_endpoint("a", "refused: a link-local address", False), "refused", id="refused"
        ),
        pytest.param(make_endpoint("a", "not on this node", False), "not_used", id="elsewhere"),
        pytest.param(make_endpoint("a", "meant for zone north", False), "not_used", id="by-hints"),
    ],
)
def test_the_state_label_is_one_of_few(endpoint, expected):
    assert state_label(endpoint) == expected


def test_endpoints_are_counted_by_state():
    view = make_troubled_view()
    labels = {**WEB, "service": "payments"}
    name = "userspace_proxy_endpoints"
    assert value(view, name, **labels, state="ready") == 1
    assert value(view, name, **labels, state="ejected") == 1
    assert value(view, name, **labels, state="terminating") == 1
    assert value(view, name, **labels, state="refused") is None


def test_failed_dials_are_counted_by_cause():
    failed = {CauseCode.ENDPOINT_SILENT: 3}
    endpoint = replace(make_endpoint("10.244.1.7:8080", failures=3), failures_by_cause=failed)
    port = replace(make_port(endpoints=(endpoint,)), failures_by_cause=failed)
    view = make_view(port, totals=TotalsFacts(failures_by_cause=failed))
    silent, refuses = {"cause": "endpoint-silent"}, {"cause": "endpoint-refuses"}
    name = "userspace_proxy_node_dial_failures_total"
    assert (value(view, name, **silent), value(view, name, **refuses)) == (3, 0)
    name = "userspace_proxy_dial_failures_total"
    assert value(view, name, **WEB, **silent) == 3
    assert value(view, name, **WEB, **refuses) is None
    name = "userspace_proxy_endpoint_failures_total"
    assert value(view, name, **WEB, endpoint="10.244.1.7:8080", **silent) == 3


def test_saved_connections_are_counted_for_the_node_and_for_service_ports():
    view = make_view(replace(make_port(), saved=5), totals=TotalsFacts(saved=8))
    assert value(view, "userspace_proxy_node_connections_saved_total", detail="node") == 8
    assert value(view, "userspace_proxy_connections_saved_total", detail="service", **WEB) == 5


def test_connections_that_wait_are_counted_for_the_node_and_for_service_ports():
    waits = Waits(3, 12.0, total=9, timeouts=4, overflows=2, client_aborts=1)
    view = make_view(
        make_port(waits=waits), totals=TotalsFacts(waits=msgspec.structs.replace(waits, total=10))
    )
    expected = {
        "connections_waiting": 3,
        "longest_wait_seconds": 12.0,
        "connections_waited_total": 9,
        "wait_timeouts_total": 4,
        "wait_overflows_total": 2,
        "wait_client_aborts_total": 1,
    }
    found = {name: value(view, f"userspace_proxy_{name}", **WEB) for name in expected}
    assert found == expected
    assert value(view, "userspace_proxy_node_connections_waited_total", detail="node") == 10
    assert "userspace_proxy_connections_waiting" not in names(make_view(make_port()), "service")


def test_connections_that_endpoints_end_without_an_answer_are_counted():
    endpoint = make_endpoint("10.244.1.7:8080", resets=2, empty=3)
    view = make_view(
        make_port(endpoints=(endpoint,), resets=2, empty=3),
        totals=TotalsFacts(resets=4, empty=5),
    )
    labels = {**WEB, "endpoint": "10.244.1.7:8080"}
    prefix = "userspace_proxy"
    assert value(view, f"{prefix}_node_connections_reset_total") == 4
    assert value(view, f"{prefix}_node_connections_empty_total") == 5
    assert value(view, f"{prefix}_connections_reset_total", **WEB) == 2
    assert value(view, f"{prefix}_endpoint_connections_empty_total", **labels) == 3


def test_service_ports_on_the_kernel_path_have_a_series_that_says_so():
    port = replace(make_port(), path=PathView(DataPath.KERNEL, kernel_connections=7))
    view = make_view(port, make_port("cart"))
    counted = "userspace_proxy_kernel_path_connections_total"
    assert value(view, counted, detail="service", **WEB) == 7
    name = "userspace_proxy_service_port_path"
    assert value(view, name, detail="service", **WEB, path="kernel") == 1
    assert [key for key in samples(view, "service") if key[0] == name][1:] == []


def test_autoscalers_need_the_detail_of_services():
    view = make_view(make_port(handling=Handling(hold=Hold(60.0))))
    needed = {
        "userspace_proxy_demand",
        "userspace_proxy_connections_active",
        "userspace_proxy_connections_total",
    }
    assert needed <= names(view, "service")
    assert not needed & names(view, "node")


def test_how_long_clients_waited_is_a_histogram_per_service_port_only_in_full_detail():
    times = Times((0.01, 1.0), (5, 2, 1), 3.5)
    port = replace(make_port(), connect_times=times, first_byte_times=times)
    view = make_view(port, totals=TotalsFacts(connect_times=times, first_byte_times=times))
    for name in ("connect_duration_seconds", "first_byte_duration_seconds"):
        full = f"userspace_proxy_{name}"
        assert value(view, f"{full}_bucket", le="1.0", **WEB) == 7
        assert value(view, f"{full}_sum", **WEB) == 3.5
        assert value(view, f"{full}_count", detail="service", **WEB) is None
        node = f"userspace_proxy_node_{name}"
        assert value(view, f"{node}_bucket", detail="node", le="+Inf") == 8


IDLE = dict.fromkeys(("active", "connections", "received_bytes", "sent_bytes"), 0)


def make_idle_port(name, **changes):
    endpoints = tuple(make_endpoint(f"10.244.{n}.7:8080") for n in (1, 2, 3))
    return make_port(name, endpoints=endpoints, **{**IDLE, **changes})


def test_the_sums_of_the_node_are_there_at_every_detail_from_the_start():
    totals = TotalsFacts(connections=7, refused=2)
    for detail in ("node", "service", "endpoint"):
        view = make_view(totals=totals)
        assert value(view, "userspace_proxy_node_connections_total", detail=detail) == 7
        assert value(view, "userspace_proxy_node_connections_refused_total", detail=detail) == 2
        assert value(view, "userspace_proxy_node_connections_evicted_total", detail=detail) == 0


def test_a_service_port_without_clients_has_no_series_but_its_endpoints_are_counted():
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


def test_endpoints_have_series_only_in_full_detail():
    view = make_view(make_port())
    assert any("endpoint_" in name for name in names(view, "endpoint"))
    assert not any("endpoint_" in name for name in names(view, "service"))
    assert "userspace_proxy_connections_total" not in names(view, "node")


def test_rare_counters_are_left_out_while_they_are_0():
    evicted = "userspace_proxy_connections_evicted_total"
    assert evicted not in names(make_view(make_port()), "endpoint")
    assert evicted in names(make_view(make_port(evicted=1)), "service")


def test_no_series_appears_twice_even_if_the_view_repeats_itself():
    web = make_port(endpoints=(), reason="it has no endpoints")
    twice = make_view(replace(web, endpoints=make_port().endpoints * 2), web, web)
    twice = replace(twice, workers=make_calm_view().workers * 2)
    made = [
        f"{family.name}{labels}"
        for family in families_of(twice, "endpoint")
        for labels, _ in family.samples
    ]
    assert len(made) == len(set(made))


def test_all_names_have_one_form():
    for family in families_of(make_calm_view(), "endpoint"):
        assert family.name.startswith(("userspace_proxy_", "kubeproxy_sync_proxy_rules_"))
        assert family.help


def test_two_sides_of_a_service_port_are_two_series():
    view = make_view(*make_two_sides())
    labels = {**WEB, "service": "front"}
    assert value(view, "userspace_proxy_usable_endpoints", **labels) == 2
    assert value(view, "userspace_proxy_usable_endpoints", **{**labels, "side": "external"}) == 0
    endpoint = {**labels, "endpoint": str(view.ports[0].plan.verdicts[0].address)}
    name = "userspace_proxy_endpoint_connections_total"
    assert value(view, name, **endpoint) == value(view, name, **{**endpoint, "side": "external"})


WEB_LABELS, CART_LABELS = '{service="web"}', '{service="cart"}'


def path_value(ports, name, **labels):
    found = read_samples(path_families(ports))
    return found.get((f"userspace_proxy_{name}", tuple(sorted(labels.items()))))


def test_a_service_port_that_was_on_the_kernel_path_has_its_connections_from_the_first_one_on():
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


def test_connections_that_are_not_counted_have_no_series():
    ports = {WEB_LABELS: replace(make_port(), path=PathView(DataPath.KERNEL))}
    assert path_value(ports, "kernel_path_connections_total", service="web") is None


def edge(client, key, connections, pod=""):
    port = port_fields(key)
    return EdgeFacts(client=client, client_pod=pod, connections=connections, **port)


def test_each_client_of_a_service_port_is_a_series_and_the_others_are_one():
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


def test_without_clients_the_others_are_0():
    text = write_families([edge_family(EdgesFacts())], open_metrics=False).decode()
    assert text.endswith('{client="other"} 0\n')


HOLDING = Handling(hold=Hold(60.0))


def holding_view():
    ports = (make_port("web", handling=HOLDING), make_port("api", handling=HOLDING), make_port("b"))
    return make_view(*ports, demand={ServiceKey("shop", "web"): 3})


def test_each_service_that_holds_has_its_demand_or_0():
    assert demand_of(holding_view()) == {ServiceKey("shop", "api"): 0, ServiceKey("shop", "web"): 3}


def test_an_autoscaler_finds_the_number_by_namespace_and_name():
    assert json.loads(render_demand(holding_view())) == {"demand": {"shop": {"api": 0, "web": 3}}}


def test_the_sums_of_all_nodes_follow_where_they_are_known():
    one = holding_view()
    one.cluster_demand = {ServiceKey("shop", "web"): 7, ServiceKey("live", "api"): 0}
    assert json.loads(render_demand(one)) == {
        "demand": {"shop": {"api": 0, "web": 3}},
        "cluster": {"shop": {"web": 7}, "live": {"api": 0}},
    }
