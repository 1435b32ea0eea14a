import json

import pytest

from userspace_proxy.secrets import Secrets
from userspace_proxy_kubectl.nodes.report import objects
from userspace_proxy_kubectl.nodes.report.objects import learn_names, read_objects, safe_object
from userspace_proxy_kubectl.nodes.report.pseudonyms import Pseudonyms
from userspace_proxy_kubectl.nodes.report.scrubbing import Scrubber
from userspace_proxy_testing.fakes.agent_status import service_objects

SERVICE = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {
        "name": "web",
        "namespace": "shop",
        "uid": "0f3a5c1e",
        "labels": {"app": "web", "app.kubernetes.io/name": "web"},
        "annotations": {
            "userspace-proxy.io/hold": "10s",
            "userspace-proxy.io/wake": "deployment/acme-web",
            "userspace-proxy.io/unknown": "hunter2",
            "kubectl.kubernetes.io/last-applied-configuration": '{"password": "hunter2"}',
            "cloud.example.com/key": "hunter2",
        },
        "managedFields": [{"manager": "hunter2"}],
        "ownerReferences": [{"name": "hunter2"}],
    },
    "spec": {
        "type": "LoadBalancer",
        "clusterIP": "10.96.0.10",
        "selector": {"app": "acme-web"},
        "ports": [{"name": "http", "port": 80, "unknown": "hunter2"}],
        "unknown": {"password": "hunter2"},
        "sessionAffinity": {"not": "a text"},
    },
    "status": {"loadBalancer": {"ingress": [{"hostname": "lb.example.com"}]}},
    "data": {"password": "hunter2"},
}
SLICE = {
    "metadata": {"name": "web-abcde", "namespace": "shop"},
    "addressType": "FQDN",
    "endpoints": [{"addresses": ["db.example.com"], "targetRef": {"name": "web-1", "uid": "7"}}],
    "ports": [{"port": 8080}],
}


def test_only_allowed_fields_are_included():
    made = safe_object(SERVICE, Scrubber(Secrets()))
    assert "hunter2" not in json.dumps(made)
    assert made["metadata"]["annotations"] == {
        "userspace-proxy.io/hold": "10s",
        "userspace-proxy.io/wake": "deployment/acme-web",
    }
    assert made["metadata"]["labels"] == {"app.kubernetes.io/name": "web"}
    assert made["left_out"] == {"annotations": 3, "labels": 1}
    assert made["spec"]["selector"] == {"app": "acme-web"}
    assert made["spec"]["sessionAffinity"] is None
    assert made["spec"]["ports"] == [{"name": "http", "port": 80}]


@pytest.mark.parametrize("item", [SERVICE, SLICE], ids=["service", "slice"])
def test_names_in_services_and_their_slices_are_hidden(item):
    scrubber = Scrubber(Secrets(), Pseudonyms(b"key"))
    learn_names(item, scrubber)
    text = json.dumps(safe_object(item, scrubber))
    for name in ("web", "shop", "acme", "example", "10.96.0.10", '"app"'):
        assert name not in text
    assert '"port": 80' in text


@pytest.mark.parametrize(
    "item",
    [{}, {"metadata": 7}, {"metadata": {"labels": [1], "name": {"a": 1}}}, {"endpoints": [[[1]]]}],
)
def test_a_malformed_object_is_filtered_without_an_error(item):
    assert "left_out" in safe_object(item, Scrubber(Secrets()))


@pytest.fixture
def api(api):
    for item in service_objects(3):
        api.put(item)
    return api


async def test_a_service_and_its_slices_are_read(client):
    found = await read_objects(client, "team-1/service-1")
    assert [item["metadata"]["name"] for item in found.items] == ["service-1", "service-1-1"]
    assert found.problem == ""


async def test_objects_beyond_the_size_limit_are_omitted(client, monkeypatch):
    monkeypatch.setattr(objects, "OBJECTS_BYTES", 400)
    found = await read_objects(client, "team-1/service-1")
    assert len(found.items) == 1
    assert found.problem.startswith("its objects have more than")


async def test_a_failed_read_of_objects_is_returned_as_a_problem(api, client):
    gone = await read_objects(client, "team-1/gone")
    assert gone.problem == "there is no such Service"
    odd = await read_objects(client, "../secrets/x")
    assert odd.items == []
    assert odd.problem
    api.denied = {"list endpointslices"}
    denied = await read_objects(client, "team-1/service-1")
    assert len(denied.items) == 1
    assert denied.problem.startswith("endpointslices is forbidden")
    await api.stop()
    assert (await read_objects(client, "team-1/service-1")).problem
