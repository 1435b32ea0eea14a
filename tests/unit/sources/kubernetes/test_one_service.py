"""Reading one Service and its pods from the fake API server."""

from __future__ import annotations

import socket

import pytest

from userspace_proxy.errors import SourceError
from userspace_proxy.model import Node, ServiceKey
from userspace_proxy.sources.kubernetes.one_service import OneServiceReader, read_service_names

from .objects import WEB, endpoint_slice, node, service


def pod(name, *, namespace="default", **labels):
    return {
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]},
    }


def elsewhere(item, namespace="other"):
    return {**item, "metadata": {**item["metadata"], "namespace": namespace}}


async def read(api, key=WEB, *, node_name="", with_pods=False, within_s=10.0, master=""):
    reader = OneServiceReader(kubeconfig="", master=master or api.url, node_name=node_name)
    return await reader.read(key, with_pods=with_pods, within_s=within_s)


async def test_a_service_is_read_with_its_slices_from_its_namespace_only(api):
    api.put(service())
    api.put(elsewhere(service("other")))
    api.put(endpoint_slice("10.244.0.1"))
    api.put(endpoint_slice("10.244.0.2", name="b", of="cart"))
    one = await read(api)
    assert list(one.snapshot.services) == [WEB]
    assert [item.key.name for item in one.snapshot.services[WEB].slices] == ["web-1"]
    assert api.requests == [
        "GET /api/v1/namespaces/default/services",
        "GET /apis/discovery.k8s.io/v1/namespaces/default/endpointslices"
        "?labelSelector=kubernetes.io/service-name%3Dweb",
    ]
    assert (one.url, one.pods) == (api.url, ())


async def test_a_service_without_slices_is_read_with_candidate_slices(api):
    api.put(service())
    api.put(endpoint_slice("10.244.0.1", of="wbe"))
    api.put(elsewhere(endpoint_slice("10.244.0.2")))
    orphans = (await read(api)).snapshot.orphans
    assert {str(key) for key in orphans} == {"default/wbe", "other/web"}


async def test_a_slice_of_another_namespaces_service_is_not_a_candidate(api):
    api.put(service())
    api.put(elsewhere(service()))
    api.put(elsewhere(endpoint_slice("10.244.0.2")))
    assert not (await read(api)).snapshot.orphans


@pytest.mark.parametrize("after", [2, 3])
async def test_a_service_is_read_even_if_slices_of_other_namespaces_are_forbidden(
    api, after, monkeypatch
):
    answer = api._list
    monkeypatch.setattr(api, "_list", lambda kind, query: answer(kind, {"limit": "1", **query}))
    api.put(service())
    for namespace in ("other", "third"):
        api.put(elsewhere(endpoint_slice("10.244.0.2"), namespace))
    # The first two requests list the namespace, the third and fourth list all namespaces.
    api.refuse("endpointslices", 403, times=1, after=after)
    one = await read(api)
    assert WEB in one.snapshot.services
    assert not one.snapshot.orphans


async def test_a_forbidden_list_of_services_is_an_error(api):
    api.refuse("services", 403, message="services is forbidden")
    with pytest.raises(SourceError, match="refuses to list services: services is forbidden"):
        await read(api)


async def test_the_node_with_the_given_name_is_read(api):
    api.put(service())
    api.put(node("alice"))
    found = (await read(api, node_name="alice")).snapshot.node
    assert found is not None
    assert found.name == "alice"
    missing = (await read(api, node_name="alice.example")).snapshot.node
    assert missing == Node("alice.example", is_missing=True, similar=("alice",))
    api.refuse("nodes", 403)
    assert (await read(api, node_name="bob")).snapshot.node is None


async def test_without_matching_pods_the_whole_namespaces_pods_are_read(api):
    api.put(service(selector={"app": "web"}))
    api.put(pod("cart-1", app="cart"))
    api.put(pod("far", namespace="other", app="cart"))
    assert [one.name for one in (await read(api, with_pods=True)).pods] == ["cart-1"]
    assert (await read(api)).pods == ()


async def test_pods_that_slices_of_other_programs_name_are_read_too(api):
    api.put(service(selector={"app": "web"}))
    named = endpoint_slice("10.244.0.1", "10.244.0.2")
    for item, name in zip(named["endpoints"], ("vm-1", "gone"), strict=True):
        item["targetRef"] = {"kind": "Pod", "name": name}
    for item in (named, pod("web-1", app="web"), pod("vm-1", app="vm"), pod("vm-2", app="vm")):
        api.put(item)
    assert [one.name for one in (await read(api, with_pods=True)).pods] == ["web-1", "vm-1"]


async def test_a_forbidden_list_of_pods_is_an_error(api):
    api.put(service(selector={"app": "web"}))
    api.refuse("pods", 403, message="pods is forbidden")
    with pytest.raises(SourceError, match="refuses to list pods: pods is forbidden"):
        await read(api, with_pods=True)


async def test_target_ports_of_a_service_are_read(api):
    api.put(service(ports=[{"port": 80, "targetPort": "http"}]))
    assert (await read(api)).targets == ("http",)


async def test_a_nonexistent_service_is_returned_with_the_other_services_of_its_namespace(api):
    api.put(service())
    one = await read(api, ServiceKey("default", "wbe"))
    assert list(one.snapshot.services) == [WEB]


async def test_a_refused_connection_is_an_error(api):
    await api.stop()
    with pytest.raises(SourceError, match=r"cannot reach the API server at .*: Connection refused"):
        await read(api)


async def test_a_silent_server_times_out():
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(SourceError, match=r"no answer within 0\.2 s"):
            await read(None, master=url, within_s=0.2)


async def test_the_service_names_of_one_or_all_namespaces_are_read(api):
    other = service("db")
    other["metadata"]["namespace"] = "shop"
    api.put(service())
    api.put(other)

    async def read(namespace):
        return await read_service_names("", api.url, namespace=namespace, within_s=20)

    assert await read("shop") == [ServiceKey("shop", "db")]
    assert sorted(await read("")) == [ServiceKey("default", "web"), ServiceKey("shop", "db")]


async def test_a_forbidden_list_of_service_names_is_an_error(api):
    api.refuse("services", 403, message="not for you")
    with pytest.raises(SourceError, match="not for you"):
        await read_service_names("", api.url, namespace="", within_s=20)
