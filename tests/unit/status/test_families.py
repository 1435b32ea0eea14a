from dataclasses import replace

import pytest

from userspace_proxy.status.families import families_of, state_label
from userspace_proxy.status.view import LastStateView

from .views import (
    NOW,
    make_calm_view,
    make_endpoint,
    make_health_check,
    make_port,
    make_troubled_view,
    make_two_sides,
    make_view,
)

WEB = {
    "namespace": "shop",
    "service": "web",
    "port": "http",
    "protocol": "TCP",
    "family": "IPv4",
    "side": "",
}


def samples(view):
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families_of(view)
        for sample in family.samples
    }


def value(view, name, **labels):
    return samples(view).get((name, tuple(sorted(labels.items()))))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("connections_total", 36_407),
        ("connections_active", 12),
        ("connections_refused_total", 0),
        ("datagrams_dropped_total", 0),
        ("received_bytes_total", 96_400_000),
        ("sent_bytes_total", 2_400_000_000),
        ("usable_endpoints", 2),
        ("service_port_problem", 0),
    ],
)
def test_a_service_port_has(name, expected):
    assert value(make_view(make_port()), f"userspace_proxy_{name}", **WEB) == expected


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param({"problem": "port 80 is in use"}, 1, id="not-served"),
        pytest.param({"endpoints": (), "reason": "it has no endpoints"}, 1, id="refused"),
        pytest.param({"admits": (), "reason": "1 not on this node"}, 1, id="dropped"),
        pytest.param(
            {"reason": "1 not on this node"},
            0,
            id="outside-dropped-on-purpose",
        ),
        pytest.param({"is_out_of_ports": True}, 1, id="out-of-ports"),
        pytest.param({"is_out_of_client_ports": True}, 0, id="out-of-client-ports"),
    ],
)
def test_a_service_port_has_a_problem_where_its_clients_are_not_served(changes, expected):
    view = make_view(make_port(**changes))
    assert value(view, "userspace_proxy_service_port_problem", **WEB) == expected


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
        ("failures_total", 0),
        ("received_bytes_total", 48_300_000),
        ("sent_bytes_total", 1_220_000_000),
        ("ejected", 0),
    ],
)
def test_an_endpoint_has(name, expected):
    web = make_port()
    labels = {**WEB, "endpoint": str(web.plan.endpoints[0].address)}
    assert value(make_view(web), f"userspace_proxy_endpoint_{name}", **labels) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("userspace_proxy_ready", 1),
        ("userspace_proxy_source_synced", 1),
        ("userspace_proxy_source_problems", 1),
        ("userspace_proxy_source_restarts_total", 4),
        ("userspace_proxy_steering_problems", 1),
        ("userspace_proxy_steering_drift", 0),
        ("userspace_proxy_steering_repairs_total", 3),
        ("userspace_proxy_steering_helper_restarts_total", 2),
        ("userspace_proxy_descriptors", 18_700),
        ("userspace_proxy_descriptors_limit", 20_000),
        ("userspace_proxy_memory_bytes", 120_000_000),
        ("userspace_proxy_memory_limit_bytes", 200_000_000),
        ("userspace_proxy_memory_short", 0),
        ("userspace_proxy_service_ports", 10),
        ("userspace_proxy_ignored", 3),
        ("userspace_proxy_sync_rounds_total", 812),
        ("kubeproxy_sync_proxy_rules_service_changes_total", 40),
        ("kubeproxy_sync_proxy_rules_service_changes_pending", 1),
        ("kubeproxy_sync_proxy_rules_endpoint_changes_total", 90),
        ("kubeproxy_sync_proxy_rules_endpoint_changes_pending", 2),
        ("userspace_proxy_log_lines_dropped_total", 7),
    ],
)
def test_a_node_has(name, expected):
    assert value(make_troubled_view(), name) == expected


def test_the_last_state_has_its_time_and_its_failures():
    view = make_view(last_state=LastStateView("/x", served_at=NOW - 180, failures=2))
    served_at = "userspace_proxy_last_state_served_timestamp_seconds"
    assert value(view, served_at) == NOW - 180
    assert value(view, "userspace_proxy_last_state_failures_total") == 2


@pytest.mark.parametrize(
    ("worker", "up", "ended", "hung", "connections", "flows"),
    [pytest.param("0", 1, 2, 0, 1_204, 310, id="up"), pytest.param("1", 0, 2, 1, 0, 0, id="down")],
)
def test_a_worker_has(worker, up, ended, hung, connections, flows):
    view = make_troubled_view()
    name = "userspace_proxy_worker"
    assert value(view, f"{name}_connections_active", worker=worker) == connections
    assert value(view, f"{name}_flows_active", worker=worker) == flows
    assert value(view, "userspace_proxy_worker_up", worker=worker) == up
    name = "userspace_proxy_worker_restarts_total"
    assert value(view, name, worker=worker, cause="ended") == ended
    assert value(view, name, worker=worker, cause="hung") == hung


@pytest.mark.parametrize(("bound", "iterations"), [("0.001", 900), ("0.02", 990), ("+Inf", 993)])
def test_the_loop_iterations_of_a_worker_are_a_histogram(bound, iterations):
    name = "userspace_proxy_worker_loop_iteration_duration_seconds"
    view = make_troubled_view()
    assert value(view, f"{name}_bucket", worker="0", le=bound) == iterations
    assert value(view, f"{name}_sum", worker="0") == 1.5


def test_without_workers_there_are_no_series_for_them():
    assert not any("worker" in family.name for family in families_of(make_view()))


def test_build_info_names_version_and_node():
    assert value(make_view(), "userspace_proxy_build_info", version="0.1.0", node="node-a") == 1


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
            make_endpoint("a", "refused: link-local address", False), "refused", id="refused"
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


def test_no_series_appears_twice_even_if_the_view_repeats_itself():
    web = make_port()
    twice = make_view(replace(web, endpoints=web.endpoints * 2), web)
    twice = replace(twice, workers=make_calm_view().workers * 2)
    made = [
        (sample.name, tuple(sample.labels.items()))
        for family in families_of(twice)
        for sample in family.samples
    ]
    assert len(made) == len(set(made))


def test_label_values_can_always_be_encoded():
    odd = make_port("\ud800")
    assert all(
        text.encode()
        for family in families_of(make_view(odd))
        for sample in family.samples
        for text in sample.labels.values()
        if text
    )


def test_all_names_have_one_form():
    for family in families_of(make_calm_view()):
        assert family.name.startswith(("userspace_proxy_", "kubeproxy_sync_proxy_rules_"))
        assert family.documentation


def test_two_sides_of_a_service_port_are_two_series():
    view = make_view(*make_two_sides())
    labels = {**WEB, "service": "front"}
    assert value(view, "userspace_proxy_usable_endpoints", **labels) == 2
    assert value(view, "userspace_proxy_usable_endpoints", **{**labels, "side": "external"}) == 0
    endpoint = {**labels, "endpoint": str(view.ports[0].plan.endpoints[0].address)}
    name = "userspace_proxy_endpoint_connections_total"
    assert value(view, name, **endpoint) == value(view, name, **{**endpoint, "side": "external"})


def test_a_health_check_node_port_has_its_endpoints_and_its_problem():
    view = make_view(health_checks=(make_health_check("shop/web", 31000, 3, "in use"),))
    labels = {"namespace": "shop", "service": "web"}
    assert value(view, "userspace_proxy_health_check_local_endpoints", **labels) == 3
    assert value(view, "userspace_proxy_health_check_problem", **labels) == 1
