import pytest

from userspace_proxy.causes.slices import none_local
from userspace_proxy.facts import (
    FirewallFacts,
    LastStateFacts,
    ProbesFacts,
    StatusFacts,
    SteeringState,
    SyncFacts,
    TotalsFacts,
    WorkerFacts,
    figures_of,
)
from userspace_proxy.policy import Scope
from userspace_proxy.status.node_families import node_families

from .readings import read_samples
from .views import NOW, make_health_check, make_port, make_troubled_view, make_view, replace


def value(view, name, **labels):
    return read_samples(node_families(view)).get((name, tuple(sorted(labels.items()))))


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


def test_each_figure_is_of_the_kind_that_its_table_states():
    kinds = {family.name: family.kind for family in node_families(make_troubled_view())}
    tables = figures_of(StatusFacts), figures_of(WorkerFacts)
    figures = {
        f"userspace_proxy_{figure.metric}": figure.kind
        for table in tables
        for name, figure in table.items()
        # Their sums are among the figures of Service ports.
        if not name.startswith("totals.") or name == "totals.kernel_connections"
    }
    assert {"counter", "gauge"} <= set(figures.values())
    assert {name: kinds[name] for name in figures} == figures


@pytest.mark.parametrize("reason", ["firewall-drops", "source-away"])
def test_a_cause_that_concerns_the_whole_node_is_1_while_it_does(reason):
    name = "userspace_proxy_node_problem"
    firewall = FirewallFacts("table ip filter, chain INPUT", "its policy is drop", "")
    view = replace(make_troubled_view(), firewalls=(firewall,))
    assert value(view, name, reason=reason) == 1
    assert value(make_view(), name, reason=reason) == 0


def test_the_last_state_has_its_time_and_its_failures():
    view = make_view(last_state=LastStateFacts("/x", served_at=NOW - 180, failures=2))
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
    assert not any("worker" in family.name for family in node_families(make_view()))


def test_build_info_names_version_and_node():
    assert value(make_view(), "userspace_proxy_build_info", version="0.1.0", node="node-a") == 1


def test_a_health_check_node_port_has_its_endpoints_and_its_problem():
    view = make_view(health_checks=(make_health_check("shop/web", 31000, 3, "in use"),))
    labels = {"namespace": "shop", "service": "web"}
    assert value(view, "userspace_proxy_health_check_local_endpoints", **labels) == 3
    assert value(view, "userspace_proxy_health_check_problem", **labels) == 1


@pytest.mark.parametrize(
    ("steering", "failures"),
    [
        ("iptables", {"iptables_restore": 5, "iptables_partial_restore": 2}),
        ("nftables", {"nftables_sync": 5}),
        ("local", {}),
    ],
)
def test_failures_have_kube_proxys_name_for_the_steering(steering, failures):
    view = make_view(
        steering=SteeringState(steering), sync=SyncFacts(failures=5, partial_failures=2)
    )
    prefix = "kubeproxy_sync_proxy_rules_"
    found = {
        name.removeprefix(prefix).removesuffix("_failures_total"): count
        for (name, _), count in read_samples(node_families(view)).items()
        if name.startswith(prefix) and name.endswith("_failures_total")
    }
    assert found == failures


def test_service_ports_without_a_local_endpoint_are_counted_by_policy():
    elsewhere = none_local(1, 0, "node-b", "internalTrafficPolicy")
    view = make_view(
        make_port("web", scope=Scope.LOCAL, cause=elsewhere),
        make_port("cart", scope=Scope.LOCAL),
        make_port("front", scope=Scope.LOCAL_FROM_OUTSIDE, cause=elsewhere, admits=("10.0.0.0/8",)),
    )
    name = "kubeproxy_sync_proxy_rules_no_local_endpoints_total"
    assert value(view, name, traffic_policy="internal") == 1
    assert value(view, name, traffic_policy="external") == 1
    assert value(make_view(), name, traffic_policy="internal") == 0


def test_each_figure_of_the_nodes_facts_is_a_metric():
    names = [family.name for family in node_families(make_view())]
    for field, figure in figures_of(StatusFacts).items():
        if not field.startswith("totals."):
            assert names.count(f"userspace_proxy_{figure.metric}") == 1, field


def test_probes_have_their_interval_their_budget_and_their_results():
    view = make_view(probes=ProbesFacts(30_000, 15.0, 2_000, sent=500, failed=7))
    expected = {
        "path_probe_endpoints": 30_000,
        "path_probe_interval_seconds": 15.0,
        "path_probe_budget": 2_000,
        "path_probes_total": 500,
        "path_probe_failures_total": 7,
    }
    assert {name: value(view, f"userspace_proxy_{name}") for name in expected} == expected


def test_the_node_has_a_sum_where_connections_on_the_kernel_path_are_counted():
    name = "node_kernel_path_connections_total"
    view = make_view(totals=TotalsFacts(kernel_connections=0))
    assert value(view, f"userspace_proxy_{name}") == 0
    assert value(make_view(), f"userspace_proxy_{name}") is None
