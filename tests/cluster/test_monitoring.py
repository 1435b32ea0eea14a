"""The alerts of examples/monitoring: promtool accepts them, and they fire when they should.

promtool also accepts the queries of the dashboard and of docs/scale-to-zero.md.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.tools import PROMTOOL, path_of
from tests.node.monitoring import queries_of, triggers_of
from tests.tools.alerts import RULES, alerts_of

ROOT = Path(__file__).parents[2]
MONITORING = ROOT / "examples/monitoring"
NODE = 'instance="node-1"'
WEB = f'{NODE},namespace="shop",service="web",port="http",protocol="TCP",family="IPv4"'

HEALTHY = {
    f'up{{{NODE},job="kube-system/userspace-proxy"}}': "1x120",
    f"userspace_proxy_ready{{{NODE}}}": "1x120",
    f"kubeproxy_sync_proxy_rules_service_changes_pending{{{NODE}}}": "0x120",
    f"kubeproxy_sync_proxy_rules_endpoint_changes_pending{{{NODE}}}": "0 3 0x118",
    f"userspace_proxy_steering_problems{{{NODE}}}": "0x120",
    f"userspace_proxy_steering_drift{{{NODE}}}": "0x120",
    f"userspace_proxy_steering_repairs_total{{{NODE}}}": "0x50 20x70",
    f"userspace_proxy_node_connections_total{{{NODE}}}": "0+600x120",
    f"userspace_proxy_node_connections_refused_total{{{NODE}}}": "0+6x120",
    f"userspace_proxy_source_problems{{{NODE}}}": "0x120",
    f"userspace_proxy_last_state_served_timestamp_seconds{{{NODE}}}": "0x120",
    f'userspace_proxy_worker_restarts_total{{{NODE},worker="0",cause="hung"}}': "0x120",
    f"userspace_proxy_node_local_shortages_total{{{NODE}}}": "0x120",
    f"userspace_proxy_node_connections_evicted_total{{{NODE}}}": "0x120",
    f"userspace_proxy_memory_short{{{NODE}}}": "0x120",
    f"userspace_proxy_descriptors{{{NODE}}}": "400x120",
    f"userspace_proxy_descriptors_limit{{{NODE}}}": "20000x120",
    f"userspace_proxy_conntrack_full{{{NODE}}}": "0x120",
    f"userspace_proxy_conntrack_entries{{{NODE}}}": "900x120",
    f"userspace_proxy_conntrack_entries_limit{{{NODE}}}": "0x120",
    f"userspace_proxy_log_lines_dropped_total{{{NODE}}}": "7x120",
}

BROKEN = [
    ("Down", {f'up{{{NODE},job="kube-system/userspace-proxy"}}': "0x120"}),
    ("NotReady", {f"userspace_proxy_ready{{{NODE}}}": "0x120"}),
    (
        "ChangesNotInForce",
        {f"kubeproxy_sync_proxy_rules_endpoint_changes_pending{{{NODE}}}": "4x120"},
    ),
    ("SteeringBroken", {f"userspace_proxy_steering_drift{{{NODE}}}": "1x120"}),
    ("SteeringBroken", {f"userspace_proxy_steering_problems{{{NODE}}}": "1x120"}),
    ("RulesRepaired", {f"userspace_proxy_steering_repairs_total{{{NODE}}}": "0+1x120"}),
    ("ClientsRefused", {f"userspace_proxy_node_connections_refused_total{{{NODE}}}": "0+60x120"}),
    (
        "ServicePortProblem",
        {f'userspace_proxy_service_port_problem{{{WEB},reason="not-ready"}}': "1x120"},
    ),
    (
        "HealthCheckNodePort",
        {f'userspace_proxy_health_check_problem{{{NODE},namespace="a",service="b"}}': "1x120"},
    ),
    ("SourceProblem", {f"userspace_proxy_source_problems{{{NODE}}}": "2x120"}),
    (
        "ServesLastState",
        {f"userspace_proxy_last_state_served_timestamp_seconds{{{NODE}}}": "1763600000x120"},
    ),
    (
        "WorkerRestarts",
        {f'userspace_proxy_worker_restarts_total{{{NODE},worker="0",cause="hung"}}': "0+1x120"},
    ),
    ("OutOfSourcePorts", {f"userspace_proxy_node_local_shortages_total{{{NODE}}}": "0+1x120"}),
    ("ShedsLoad", {f"userspace_proxy_node_connections_evicted_total{{{NODE}}}": "0+1x120"}),
    ("ShedsLoad", {f"userspace_proxy_memory_short{{{NODE}}}": "1x120"}),
    ("DescriptorsRunShort", {f"userspace_proxy_descriptors{{{NODE}}}": "19000x120"}),
    ("ConntrackFull", {f"userspace_proxy_conntrack_full{{{NODE}}}": "1x120"}),
    ("ConntrackFull", {f"userspace_proxy_conntrack_entries_limit{{{NODE}}}": "950x120"}),
    ("LogLinesDropped", {f"userspace_proxy_log_lines_dropped_total{{{NODE}}}": "7+1x120"}),
]


@pytest.fixture(scope="module")
def promtool() -> Path:
    path = path_of(PROMTOOL)
    if not path.is_file():
        pytest.skip("no promtool (run: make build)")
    return path


@pytest.fixture(scope="module")
def rules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The rules for Prometheus, without the operator's wrapper."""
    path = tmp_path_factory.mktemp("monitoring") / "rules.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(RULES.read_text())["spec"]))
    return path


def run(*command: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(part) for part in command], capture_output=True, text=True)


def unit_test(series: dict[str, str], firing: list[str]) -> dict[str, Any]:
    """Return a promtool test: after two hours in steps of a minute, exactly these alerts fire."""
    return {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [
            {
                "expr": 'count by (alertname) (ALERTS{alertstate="firing"})',
                "eval_time": "2h",
                "exp_samples": [
                    {"labels": f'{{alertname="UserspaceProxy{name}"}}', "value": 1}
                    for name in firing
                ],
            }
        ],
    }


def test_promtool_accepts_the_rules(promtool: Path, rules: Path) -> None:
    done = run(promtool, "check", "rules", "--lint=all", "--lint-fatal", rules)
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_accepts_the_queries_of_dashboard_and_docs(promtool: Path, tmp_path: Path) -> None:
    triggers = triggers_of(ROOT / "docs/scale-to-zero.md", "prometheus")
    queries = queries_of(MONITORING / "grafana-dashboard.json")
    queries += [trigger["query"] for trigger in triggers]
    rules = [{"record": f"panel:query{n}", "expr": query} for n, query in enumerate(queries)]
    path = tmp_path / "queries.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    done = run(promtool, "check", "rules", path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(queries)} rules found" in done.stdout + done.stderr


def test_each_alert_fires_only_on_its_own_condition(promtool: Path, rules: Path) -> None:
    tests = [unit_test(HEALTHY, [])]
    tests += [unit_test({**HEALTHY, **series}, [alert]) for alert, series in BROKEN]
    path = rules.with_name("tests.yaml")
    path.write_text(yaml.safe_dump({"rule_files": [rules.name], "tests": tests}))
    done = run(promtool, "test", "rules", path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_alert_has_a_test() -> None:
    tested = {f"UserspaceProxy{alert}" for alert, _ in BROKEN}
    assert {rule["alert"] for rule in alerts_of(RULES.read_text())} == tested


def test_each_alert_has_a_severity_a_summary_a_description_and_a_runbook() -> None:
    for rule in alerts_of(RULES.read_text()):
        assert rule["labels"]["severity"] in ("critical", "warning"), rule["alert"]
        assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}, rule["alert"]
