import msgspec
import pytest

from userspace_proxy.facts import Level, StatusFacts
from userspace_proxy.sources.kubernetes.client import ApiClient
from userspace_proxy.sources.kubernetes.credentials import Credentials
from userspace_proxy_kubectl.nodes.agent_answer import AgentAnswer, AllNodes
from userspace_proxy_kubectl.nodes.agent_causes import no_agent
from userspace_proxy_kubectl.nodes.report import gathering
from userspace_proxy_kubectl.nodes.report.gathering import (
    Missing,
    gather,
    learn_all,
    make_scrubber,
    pseudonyms_of,
    unserved,
)
from userspace_proxy_kubectl.nodes.report.pseudonyms import Pseudonyms
from userspace_proxy_kubectl.port_forward import ForwardTarget
from userspace_proxy_testing.fakes.agent_answers import fixed
from userspace_proxy_testing.fakes.agent_status import service_objects, status_of
from userspace_proxy_testing.fakes.agents import node_object

NOW = 1_795_000_000.0
OBJECTS = service_objects(4)


def unhealthy(*services: str) -> StatusFacts:
    """Return the status of a node that doesn't serve these Services."""
    status = status_of(OBJECTS, "node-1")
    for port in status.ports:
        if port.service in services:
            port.state = msgspec.structs.replace(port.state, level=Level.TROUBLE)
            status.level = Level.TROUBLE
    return status


def answer(node: str, status: StatusFacts | None = None, **more: object) -> AgentAnswer:
    agents = (ForwardTarget("kube-system", f"userspace-proxy-{node}", 10249),)
    return AgentAnswer(node, agents, status, **more)


@pytest.fixture
def api(api, agents):
    for item in OBJECTS:
        api.put(item)
    for node in ("a", "b"):
        agents.add(node, fixed(b""), log=f"log of {node}\n")
    return api


def test_services_unserved_on_most_nodes_come_first():
    nodes = AllNodes(
        (
            answer("a", unhealthy("service-2")),
            answer("b", unhealthy("service-1", "service-2")),
            answer("c", behind=("team-3/service-3",)),
        )
    )
    assert unserved(nodes) == ["team-2/service-2", "team-1/service-1", "team-3/service-3"]


async def test_gathering_reads_affected_services_logs_and_the_server_version(client):
    nodes = AllNodes((answer("b", unhealthy()), answer("a", unhealthy("service-2"))))
    found = await gather(client, nodes, made_at=NOW)
    assert [one.service for one in found.objects] == ["team-2/service-2"]
    # The logs of the node with a problem precede the others.
    assert [one.text for one in found.logs] == ["log of a\n", "log of b\n"]
    assert found.server_version == {"gitVersion": "v1.36.3"}
    assert found.missing == []
    assert found.all_nodes == nodes


async def test_gathering_lists_the_missing_parts(api, client):
    api.denied = {"get pods/log", "list endpointslices"}
    gone = AgentAnswer("c", problem=no_agent("kube-system"))
    nodes = AllNodes((answer("a", unhealthy("service-1")), answer("b"), gone), has_nodes=False)
    found = await gather(client, nodes, made_at=NOW)
    assert [one.what for one in found.missing] == [
        "answer of c",
        "nodes without an agent",
        "objects of Service team-1/service-1",
        "log of kube-system/userspace-proxy-a and 1 other",
    ]
    assert Missing("answer of c", "no agent") in found.missing


async def test_no_logs_are_read_unless_all_names_are_known(api, client):
    found = await gather(client, AllNodes((answer("a"),)), made_at=NOW, unknown="forbidden")
    assert found.logs == []
    assert found.missing[0].what == "logs of agents"
    assert not [one for one in api.requests if "/log" in one]


async def test_service_ports_beyond_the_limit_are_omitted_from_responses(client, monkeypatch):
    monkeypatch.setattr(gathering, "PORTS_MAX", 4)
    more = (answer("c", unhealthy("service-1"), is_summary=True), answer("d"))
    nodes = AllNodes((answer("a", unhealthy()), answer("b", unhealthy("service-1")), *more))
    found = await gather(client, nodes, made_at=NOW)
    first, second, *_ = found.all_nodes.answers
    assert (len(first.status.ports), first.is_summary) == (0, True)
    assert (len(second.status.ports), second.is_summary) == (4, False)
    assert found.missing[0].what == "what is served on 1 node"


async def test_the_users_own_credentials_are_hidden_as_secrets(tmp_path):
    for user, secret in (
        ('{"token": "planted-token"}', "planted-token"),
        ('{"username": "alice", "password": "planted-password"}', "planted-password"),
    ):
        path = tmp_path / "config"
        path.write_text(
            '{"current-context": "c", "contexts": [{"name": "c", "context": {"cluster": "c", '
            f'"user": "u"}}}}], "users": [{{"name": "u", "user": {user}}}], '
            '"clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:1"}}]}'
        )
        client = ApiClient(Credentials(kubeconfig=str(path)))
        await client.open()
        scrubber, unknown = await make_scrubber(client, None)
        await client.close()
        assert (scrubber.text(f"sent {secret}"), unknown) == ("sent [removed]", "")


def test_the_api_servers_host_name_is_hidden():
    for url in ("https://api-acme", "https://api-acme:6443/k8s"):
        hidden = pseudonyms_of(url, b"key").hide(f"cannot reach {url}")
        assert hidden.startswith("cannot reach https://host-")
        assert "acme" not in hidden


async def test_the_scrubber_reports_that_listing_nodes_is_forbidden(api, client):
    api.denied = {"list nodes"}
    _, unknown = await make_scrubber(client, b"key")
    assert unknown.startswith("nodes is forbidden")


SERVICE = {
    "kind": "Service",
    "metadata": {
        "name": "front",
        "namespace": "acme",
        "annotations": {"userspace-proxy.io/wake": "deployment/sleeper"},
    },
}
SLICE = {
    "kind": "EndpointSlice",
    "metadata": {"name": "front-x", "namespace": "acme"},
    "endpoints": [
        {"targetRef": {"name": "api-6c9f7d5b8-x2x4z"}, "nodeName": "alpha"},
        {"targetRef": {"name": "db-0"}, "hostname": "primary"},
        {"targetRef": None},
    ],
}


async def test_names_of_all_objects_are_collected(api, client):
    for item in (SERVICE, SLICE, node_object("beta")):
        api.put(item)
    pseudonyms = Pseudonyms(b"key")
    assert await learn_all(client, pseudonyms) == ""
    words = "front acme sleeper front-x api-6c9f7d5b8-x2x4z api db-0 db alpha beta primary"
    hidden = pseudonyms.hide(words).split()
    assert [word for word in words.split() if word in hidden] == []
    kinds = [word.partition("-")[0] for word in hidden]
    assert kinds == [
        "service", "namespace", "workload", "slice", "pod", "workload", "pod", "workload", "node",
        "node", "pod",
    ]  # fmt: skip


@pytest.mark.parametrize("kind", ["nodes", "services", "endpointslices"])
async def test_learn_all_reports_a_forbidden_list(api, client, kind):
    api.denied = {f"list {kind}"}
    assert (await learn_all(client, Pseudonyms(b"key"))).startswith(f"{kind} is forbidden")


async def test_learn_all_reports_an_unreachable_api_server(api, client):
    await api.stop()
    assert "refused" in await learn_all(client, Pseudonyms(b"key"))
