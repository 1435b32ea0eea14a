import asyncio
import json

import pytest

from tests.unit.sources.kubernetes.objects import endpoint_slice, service
from tests.unit.status.views import make_endpoint, make_port
from userspace_proxy.causes.endpoints import refuses
from userspace_proxy.cli import main
from userspace_proxy_testing.fakes.agent_answers import FakeAgent
from userspace_proxy_testing.fakes.agents import FakeAgents

from .nodes_world import ADDRESS, DB, REFUSED, WEB, A, status_of


@pytest.fixture(autouse=True)
def started_by_name(monkeypatch):
    monkeypatch.setattr("sys.argv", ["userspace-proxy"])


@pytest.fixture
def three(cluster):
    """The agents, by node, of three nodes that serve the API server's Service web."""
    web = service(name="web", clusterIP="10.96.0.10")
    web["metadata"]["namespace"] = "shop"
    web["spec"]["ports"] = [{"name": "http", "port": 80}]
    slices = endpoint_slice("10.244.1.1", "10.244.2.2")
    slices["metadata"] |= {"namespace": "shop"}
    slices["ports"] = [{"name": "http", "port": 8080}]
    cluster.api.put(web)
    cluster.api.put(slices)
    return {node: cluster.add(node) for node in ("node-1", "node-2", "node-3")}


async def test_explain_shows_the_plan_and_all_nodes_responses(three, cluster, capsys):
    assert await cluster.run("explain", "web") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"shop/web, from {cluster.api.url}"
    assert "  ✓ nodes      all 3 nodes answered" in lines
    assert "  ✓ clients    shop/web:http: served on all 3 nodes" in lines
    assert "Clients would be served by 2 endpoints; served on all 3 nodes." in lines


async def test_a_node_that_deviates_from_the_plan_determines_the_verdict(three, cluster, capsys):
    three["node-2"].change(status_of("node-2", REFUSED, DB))
    assert await cluster.run("explain", "web") == 3
    *_, sentence, following = capsys.readouterr().out.splitlines()
    assert sentence.startswith("shop/web:http: partly answering on node-2 (1 of 3): ")
    assert f"{A}" in sentence
    assert following == (
        "next: kubectl get endpointslices -n shop -l kubernetes.io/service-name=web -o yaml "
        f"{cluster.kubeconfig}"
    )


async def test_the_path_on_another_node_is_explained_without_dials(three, cluster, capsys):
    ends = (
        make_endpoint(A, connections=1, sent_bytes=1),
        make_endpoint(A, cause=refuses(A), node="node-1"),
    )
    for node, end in zip(three, ends, strict=False):
        port = make_port("web", frontends=(ADDRESS,), endpoints=(end,))
        three[node].change(status_of(node, port, DB))
    assert await cluster.run("explain", "web", "--node=node-2", "--probe") == 3
    out = capsys.readouterr().out
    assert out.startswith("shop/web, from the proxy of node-2\n")
    assert f"{A} on node-1: " in out
    assert "Other nodes are answered" in out
    assert "Nothing was dialled" in out, "the endpoint was dialled from here"
    assert await cluster.run("explain", "web", "--node=node-1") == 0


async def test_json_output_contains_the_nodes(three, cluster, capsys):
    assert await cluster.run("explain", "web", "-o", "json") == 0
    explained = json.loads(capsys.readouterr().out)
    assert explained["service"] == "shop/web"
    assert [row["node"] for row in explained["nodes"]["nodes"]] == [*three]


def label(cluster, name):
    """Assign the Service web to proxies of this service-proxy-name."""
    web = service(name="web", clusterIP="10.96.0.10")
    web["metadata"]["namespace"] = "shop"
    web["metadata"]["labels"] = {"service.kubernetes.io/service-proxy-name": name}
    web["spec"]["ports"] = [{"name": "http", "port": 80}]
    cluster.api.put(web)


@pytest.mark.parametrize("is_beside", [False, True], ids=["alone", "beside-a-main-release"])
async def test_a_canarys_service_is_planned_with_the_canarys_settings(
    three, cluster, capsys, is_beside
):
    label(cluster, "try")
    if not is_beside:
        for node in three:
            cluster.agents.remove(node)
    canaries = FakeAgents(cluster.api, release="canary", port=10349, serves="try")
    settings = {"service_proxy_name": "try", "external_ips": ["192.0.2.0/24"], "new": 1}
    for node, agent in three.items():
        agent.change(status_of(node, DB))
        canaries.add(node, FakeAgent(status_of(node, WEB, settings=settings)))
    assert await cluster.run("explain", "web") == 0
    out = capsys.readouterr().out
    assert "Clients would be served by 2 endpoints; served on all 3 nodes." in out
    assert "not served" not in out


async def test_a_service_of_a_missing_canary_is_explained_as_not_served(three, cluster, capsys):
    label(cluster, "gone")
    for node, agent in three.items():
        agent.change(status_of(node, DB))
    assert await cluster.run("explain", "web") == 3
    out = capsys.readouterr().out
    assert "It is not served: its label assigns it to the service proxy 'gone'" in out


async def test_flags_have_precedence_over_the_agents_settings(three, cluster, capsys):
    label(cluster, "try")
    assert await cluster.run("explain", "web", "--service-proxy-name=try") == 0
    assert "Clients would be served by 2 endpoints" in capsys.readouterr().out


async def test_without_an_agent_only_the_plan_is_explained(three, cluster, capsys):
    for node in three:
        cluster.agents.remove(node)
    assert await cluster.run("explain", "web") == 0
    out, err = capsys.readouterr()
    assert "Clients would be served by 2 endpoints" in out
    assert "nodes" not in out
    assert err.startswith("warning: no node is asked, so this is planned from the API server: ")
    assert err.count("\n") == 1


async def test_without_permission_to_read_services_only_nodes_are_queried(three, cluster, capsys):
    three["node-2"].change(status_of("node-2", REFUSED, DB))
    cluster.api.denied = {"list services", "list endpointslices.discovery.k8s.io"}
    assert await cluster.run("explain", "web") == 3
    out, err = capsys.readouterr()
    assert out.startswith("shop/web, from the proxy of node-2\n")
    assert "partly answering on node-2 (1 of 3)" in out
    assert err.startswith("warning: only nodes are asked: ")


async def test_manifests_are_explained_without_nodes(three, cluster, tmp_path, capsys):
    path = tmp_path / "web.yaml"
    path.write_text("")
    assert await cluster.run("explain", "web", f"--manifests={path}") == 1
    assert not any(agent.requests for agent in three.values())


async def test_the_node_flag_selects_kubectls_cluster_and_namespace(
    three, cluster, monkeypatch, capsys
):
    monkeypatch.setenv("KUBECONFIG", str(cluster.path))
    words = ["explain", "web", "--node=node-1"]
    assert await asyncio.to_thread(main, words) == 0
    assert capsys.readouterr().out.startswith("shop/web, from the proxy of node-1\n")
