import pytest

from userspace_proxy.causes.slices import none_local
from userspace_proxy.facts import (
    FirewallFacts,
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
from .recorded import changed
from .views import make_port, make_troubled_view, make_view, replace


def value(view, name, **labels):
    return read_samples(node_families(view)).get((name, tuple(sorted(labels.items()))))


def test_node_families_have_the_kind_stated_in_the_figures_table():
    kinds = {family.name: family.kind for family in node_families(make_troubled_view())}
    tables = figures_of(StatusFacts), figures_of(WorkerFacts)
    figures = {
        f"userspace_proxy_{figure.metric}": figure.kind
        for table in tables
        for name, figure in table.items()
        # All other totals are sums over Service ports, which have metrics of their own.
        if not name.startswith("totals.") or name == "totals.kernel_connections"
    }
    assert {"counter", "gauge"} <= set(figures.values())
    assert {name: kinds[name] for name in figures} == figures


@pytest.mark.parametrize("reason", ["firewall-drops", "not-listening", "source-away"])
def test_the_series_of_a_node_wide_cause_is_1_only_while_the_cause_lasts(reason):
    name = "userspace_proxy_node_problem"
    firewall = FirewallFacts("table ip filter, chain INPUT", "its policy is drop", "")
    unrouted = {"fd00::1": "Network is unreachable"}
    view = replace(make_troubled_view(), firewalls=(firewall,), unrouted=unrouted)
    assert value(view, name, reason=reason) == 1
    assert value(make_view(), name, reason=reason) == 0


def test_without_workers_there_are_no_worker_series():
    assert not any("worker" in family.name for family in node_families(make_view()))


@pytest.mark.parametrize(
    ("steering", "failures"),
    [
        ("iptables", {"iptables_restore": 5, "iptables_partial_restore": 2}),
        ("nftables", {"nftables_sync": 5}),
        ("local", {}),
    ],
)
def test_sync_failures_use_kube_proxys_metric_names_for_the_steering_mode(steering, failures):
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


def test_each_node_figure_has_one_metric():
    names = [family.name for family in node_families(make_view())]
    for field, figure in figures_of(StatusFacts).items():
        if not field.startswith("totals."):
            assert names.count(f"userspace_proxy_{figure.metric}") == 1, field


def test_the_node_total_of_kernel_path_connections_exists_only_if_counted():
    name = "node_kernel_path_connections_total"
    view = make_view(totals=TotalsFacts(kernel_connections=0))
    assert value(view, f"userspace_proxy_{name}") == 0
    assert value(make_view(), f"userspace_proxy_{name}") is None


def test_node_metrics_match_the_recorded_text(tmp_path):
    assert changed(tmp_path, "metrics-node") == []
