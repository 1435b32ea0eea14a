"""What examples/monitoring asks for is in ``/metrics`` of a running proxy, by these names."""

from __future__ import annotations

from collections.abc import Mapping, Set
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.cluster.waiting import wait_for
from tests.node.manifests import Service
from tests.node.monitoring import alerts_of, needs_of, queries_of, variables_of
from tests.node.testbed import Testbed

pytestmark = pytest.mark.netns

MONITORING = Path(__file__).parents[2] / "examples/monitoring"
DASHBOARD = MONITORING / "grafana-dashboard.json"
LOCAL = {
    "type": "LoadBalancer",
    "externalTrafficPolicy": "Local",
    "healthCheckNodePort": 31044,
}


@pytest.fixture(scope="module")
def metrics(tmp_path_factory) -> Mapping[str, Set[str]]:
    """The labels of each metric of a proxy with clients, and with one of each kind of failure."""
    folder = tmp_path_factory.mktemp("monitoring")
    with Testbed(folder, "nftables", "--workers=1", clients=["pod"]) as testbed:
        ips = testbed.add_pods("one", tcp=8080, reset=8082, source=8083)
        web = Service("web", "10.96.0.10", endpoints=ips, more=LOCAL)
        dead = Service("dead", "10.96.0.11", endpoints=ips, target=8081)
        empty = Service("empty", "10.96.0.12")
        resets = Service("resets", "10.96.0.13", endpoints=ips, target=8082)
        closes = Service("closes", "10.96.0.14", endpoints=ips, target=8083)
        objects = [o for service in (web, dead, empty, resets, closes) for o in service.objects()]
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
        found: dict[str, set[str]] = {}
        for family in text_string_to_metric_families(testbed.agent.read("/metrics")[1]):
            name = f"{family.name}_total" if family.type == "counter" else family.name
            found.setdefault(name, set())
            for sample in family.samples:
                found.setdefault(sample.name, set()).update(sample.labels)
        return found


QUERIES = (
    *queries_of(DASHBOARD),
    *variables_of(DASHBOARD),
    *alerts_of(MONITORING / "prometheusrule.yaml"),
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
