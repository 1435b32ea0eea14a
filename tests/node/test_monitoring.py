"""What examples/monitoring and docs/scale-to-zero.md ask for is in a running proxy's answers."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Set
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.cluster.waiting import wait_for
from tests.node.manifests import Service
from tests.node.monitoring import alerts_of, needs_of, queries_of, triggers_of, variables_of
from tests.node.testbed import Testbed

pytestmark = pytest.mark.netns

ROOT = Path(__file__).parents[2]
MONITORING = ROOT / "examples/monitoring"
DASHBOARD = MONITORING / "grafana-dashboard.json"
LOCAL = {
    "type": "LoadBalancer",
    "externalTrafficPolicy": "Local",
    "healthCheckNodePort": 31044,
}


SCALE_TO_ZERO = ROOT / "docs/scale-to-zero.md"
# KEDA's triggers are for a Service with this annotation.
HOLD = {"userspace-proxy.io/hold": "60s"}
BUSY = re.compile(r'userspace_proxy_connections_active\{[^}]*service="busy"[^}]*\} 1')


class Answers(NamedTuple):
    """What a proxy answers."""

    metrics: str
    by_path: Mapping[str, object]
    """JSON that KEDA reads."""


def for_busy(text: str) -> str:
    """Return a query or an address of the page for the Service of the test."""
    return text.replace("default", "shop").replace("web", "busy")


@pytest.fixture(scope="module")
def answers(tmp_path_factory) -> Answers:
    """Of a proxy with clients, with one of each kind of failure; ``busy`` has one connection."""
    folder = tmp_path_factory.mktemp("monitoring")
    with Testbed(folder, "nftables", "--workers=1", clients=["pod"]) as testbed:
        ips = testbed.add_pods("one", tcp=8080, reset=8082, source=8083)
        web = Service("web", "10.96.0.10", endpoints=ips, more=LOCAL)
        dead = Service("dead", "10.96.0.11", endpoints=ips, target=8081)
        empty = Service("empty", "10.96.0.12")
        resets = Service("resets", "10.96.0.13", endpoints=ips, target=8082)
        closes = Service("closes", "10.96.0.14", endpoints=ips, target=8083)
        busy = Service("busy", "10.96.0.15", endpoints=ips, annotations=HOLD)
        services = (web, dead, empty, resets, closes, busy)
        objects = [o for service in services for o in service.objects()]
        for item in objects:
            (item.get("spec") or item)["ports"][0]["name"] = "http"
        testbed.agent.manifests.write_objects(objects)
        testbed.agent.start_until_ready()
        wait_for("an answer", lambda: testbed["pod"].get(web.address))
        testbed["pod"].tcp_refusal(dead.address)
        for service in (resets, closes):
            # The server of `closes` expects a number.
            testbed["pod"].dial(service.address).send(b"x\n")
        for name in ("failures", "connections_reset", "connections_empty"):
            series = f"userspace_proxy_endpoint_{name}_total{{"
            wait_for(name, lambda wanted=series: wanted in testbed.agent.read("/metrics")[1])
        testbed["pod"].dial(busy.address)
        wait_for("a connection", lambda: BUSY.search(testbed.agent.read("/metrics")[1]))
        paths = [path_of(trigger) for trigger in triggers_of(SCALE_TO_ZERO, "metrics-api")]
        return Answers(
            testbed.agent.read("/metrics")[1],
            {path: json.loads(testbed.agent.read(path)[1]) for path in paths},
        )


def path_of(trigger: Mapping[str, str]) -> str:
    url = urlsplit(for_busy(trigger["url"]))
    return url._replace(scheme="", netloc="").geturl()


@pytest.fixture(scope="module")
def metrics(answers) -> Mapping[str, Set[str]]:
    """The labels of each metric."""
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(answers.metrics):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        found.setdefault(name, set())
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


QUERIES = (
    *queries_of(DASHBOARD),
    *variables_of(DASHBOARD),
    *alerts_of(MONITORING / "prometheusrule.yaml"),
    *(trigger["query"] for trigger in triggers_of(SCALE_TO_ZERO, "prometheus")),
)


def test_each_metric_of_a_query_is_there(metrics):
    # Only Prometheus itself knows `up`.
    wanted = {query: needs_of(query).metrics for query in QUERIES if not query.startswith("up{")}
    assert all(wanted.values())
    assert {query: names - metrics.keys() for query, names in wanted.items()} == dict.fromkeys(
        wanted, frozenset()
    )


def test_each_label_of_a_query_is_there(metrics):
    missing = {}
    for query in QUERIES:
        needs = needs_of(query)
        labels = set().union(*(metrics[name] for name in needs.metrics))
        if needs.metrics and not needs.labels <= labels:
            missing[query] = needs.labels - labels
    assert not missing


def test_without_demand_the_recipe_for_prometheus_sees_a_connection(answers):
    samples = [s for f in text_string_to_metric_families(answers.metrics) for s in f.samples]
    values = {}
    for trigger in triggers_of(SCALE_TO_ZERO, "prometheus"):
        query = for_busy(trigger["query"])
        (name,) = needs_of(query).metrics
        assert f'{name}{{namespace="shop",service="busy"}}' in query
        at = {"namespace": "shop", "service": "busy"}.items()
        values[name] = sum(s.value for s in samples if s.name == name and at <= s.labels.items())
    assert values == {
        "userspace_proxy_demand": 0,
        "userspace_proxy_connections_active": 1,
        "userspace_proxy_connections_total": 1,
    }


def test_without_demand_the_recipe_for_metrics_api_sees_a_connection(answers):
    values = {}
    for trigger in triggers_of(SCALE_TO_ZERO, "metrics-api"):
        value = answers.by_path[path_of(trigger)]
        for step in for_busy(trigger["valueLocation"]).split("."):
            value = value[int(step)] if isinstance(value, list) else value[step]
        values[path_of(trigger)] = value
    assert values == {"/api/v1/demand": 0, "/api/v1/status?service=shop/busy": 1}
