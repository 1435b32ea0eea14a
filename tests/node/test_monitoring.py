"""A running proxy answers all queries of examples/monitoring and docs/scale-to-zero.md."""

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
from tests.node.monitoring import needs_of, queries_of, triggers_of, variables_of
from tests.node.testbed import Testbed
from tests.tools.alerts import RULES, alerts_of

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
# KEDA's triggers apply to a Service with this annotation.
HOLD = {"userspace-proxy.io/hold": "60s"}
BUSY = re.compile(r'userspace_proxy_connections_active\{[^}]*service="busy"[^}]*\} 2')


class Answers(NamedTuple):
    """A proxy's answers to Prometheus and KEDA."""

    metrics: str
    by_path: Mapping[str, object]
    """The JSON that KEDA reads, by path."""


def for_busy(text: str) -> str:
    """Return a query or an address with the test's Service instead of the documented one."""
    return text.replace("default", "shop").replace("web", "busy")


@pytest.fixture(scope="module")
def answers(tmp_path_factory) -> Answers:
    """A proxy whose clients have had each kind of failure; ``busy`` has two connections."""
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
        for _ in range(2):
            testbed["pod"].dial(busy.address)
        wait_for("the connections", lambda: BUSY.search(testbed.agent.read("/metrics")[1]))
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
    *(alert["expr"] for alert in alerts_of(RULES.read_text())),
    *(trigger["query"] for trigger in triggers_of(SCALE_TO_ZERO, "prometheus")),
)


def test_each_metric_in_a_query_is_exported(metrics):
    # Prometheus itself adds `up`.
    wanted = {query: needs_of(query).metrics for query in QUERIES if not query.startswith("up{")}
    assert all(wanted.values())
    assert {query: names - metrics.keys() for query, names in wanted.items()} == dict.fromkeys(
        wanted, frozenset()
    )


def test_each_label_in_a_query_is_exported(metrics):
    missing = {}
    for query in QUERIES:
        needs = needs_of(query)
        labels = set().union(*(metrics[name] for name in needs.metrics))
        if needs.metrics and not needs.labels <= labels:
            missing[query] = needs.labels - labels
    assert not missing


def test_the_prometheus_recipe_counts_open_connections(answers):
    samples = [s for f in text_string_to_metric_families(answers.metrics) for s in f.samples]
    (trigger,) = triggers_of(SCALE_TO_ZERO, "prometheus")
    query = for_busy(trigger["query"])
    assert query == 'sum(userspace_proxy_demand{namespace="shop",service="busy"})'
    at = {"namespace": "shop", "service": "busy"}.items()
    counts = [
        s.value for s in samples if s.name == "userspace_proxy_demand" and at <= s.labels.items()
    ]
    assert counts == [2]


def test_the_metrics_api_recipe_reads_the_demand_of_all_nodes(answers):
    (trigger,) = triggers_of(SCALE_TO_ZERO, "metrics-api")
    assert path_of(trigger) == "/api/v1/demand"
    assert for_busy(trigger["valueLocation"]) == "cluster.shop.busy"
    # With manifests there is one node, so its figures are the total; tests/cluster tests more.
    assert answers.by_path["/api/v1/demand"] == {"demand": {"shop": {"busy": 2}}}
