import pytest

from userspace_proxy.nodes.report.names import learn_all
from userspace_proxy.nodes.report.pseudonyms import Pseudonyms
from userspace_proxy_testing.fakes.agents import node_object

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


async def test_names_of_all_objects_are_learned(api, client):
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
async def test_what_may_not_be_listed_is_said(api, client, kind):
    api.denied = {f"list {kind}"}
    assert (await learn_all(client, Pseudonyms(b"key"))).startswith(f"{kind} is forbidden")


async def test_a_server_that_is_gone_is_said(api, client):
    await api.stop()
    assert "refused" in await learn_all(client, Pseudonyms(b"key"))
