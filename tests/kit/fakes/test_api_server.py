"""The fake API server, from the view of an HTTP client."""

from __future__ import annotations

import json
from typing import Any

import aiohttp
import pytest

from tests.cluster.api_contract import ApiContract
from userspace_proxy.sources.kubernetes.client import ApiClient
from userspace_proxy.sources.kubernetes.credentials import Credentials
from userspace_proxy_testing.fakes.api_server import PATHS

SERVICES = "/api/v1/services"
WEB = {"kind": "Service", "metadata": {"name": "web"}}
DEADLINE_S = 120.0


@pytest.fixture
async def client(api):
    timeout = aiohttp.ClientTimeout(total=DEADLINE_S)
    async with aiohttp.ClientSession(api.url, timeout=timeout) as client:
        yield client


async def get(client: aiohttp.ClientSession, path: str, **query: str) -> tuple[int, dict[str, Any]]:
    async with client.get(path, params=query) as response:
        return response.status, await response.json()


async def next_event(response: aiohttp.ClientResponse) -> tuple[str, str]:
    event = json.loads(await response.content.readline())
    return event["type"], event["object"]["metadata"]["resourceVersion"]


async def test_a_list_has_a_resource_version_and_is_recorded(api, client):
    api.put(WEB)
    code, body = await get(client, SERVICES, limit="500")
    assert (code, body["metadata"]["resourceVersion"]) == (200, "1001")
    assert [item["metadata"]["name"] for item in body["items"]] == ["web"]
    assert api.requests == ["GET /api/v1/services?limit=500"]


@pytest.mark.parametrize(
    ("has_watch_cache", "query", "count"),
    [
        pytest.param(True, {"limit": "1"}, 1, id="newest"),
        pytest.param(True, {"limit": "1", "resourceVersion": "0"}, 2, id="from-memory"),
        pytest.param(False, {"limit": "1", "resourceVersion": "0"}, 1, id="no-memory"),
        pytest.param(False, {}, 2, id="no-limit"),
    ],
)
async def test_lists_are_limited_as_by_a_real_server(api, client, has_watch_cache, query, count):
    api.has_watch_cache = has_watch_cache
    for name in ("cart", "web"):
        api.put({"kind": "Service", "metadata": {"name": name}})
    _, body = await get(client, SERVICES, **query)
    assert len(body["items"]) == count
    assert bool(body["metadata"]["continue"]) is (count == 1)


async def test_a_watch_begins_after_its_version_and_continues(api, client):
    api.put(WEB)
    api.put(WEB)
    async with client.get(SERVICES, params={"watch": "1", "resourceVersion": "1001"}) as response:
        assert await next_event(response) == ("MODIFIED", "1002")
        api.delete("Service", "web")
        assert await next_event(response) == ("DELETED", "1003")
        api.bookmark()
        assert await next_event(response) == ("BOOKMARK", "1003")
        api.end_watches()
        assert await response.content.readline() == b""


async def test_a_watch_from_a_compacted_version_is_rejected_as_gone(api, client):
    api.forget()
    async with client.get(SERVICES, params={"watch": "1", "resourceVersion": "1000"}) as response:
        event = json.loads(await response.content.readline())
    assert (event["type"], event["object"]["code"]) == ("ERROR", 410)


@pytest.mark.parametrize(
    ("query", "code", "message"),
    [
        pytest.param({"resourceVersion": "x"}, 400, "resourceVersion: Invalid", id="no-version"),
        pytest.param({"resourceVersion": "9999"}, 504, "Too large resource", id="future"),
        pytest.param({"continue": "x"}, 410, "The provided continue parameter", id="old-page"),
    ],
)
async def test_invalid_versions_and_continue_tokens_return_a_status_object(
    api, client, query, code, message
):
    status, body = await get(client, SERVICES, **query)
    assert (status, body["code"]) == (code, code)
    assert body["message"].startswith(message)


async def test_refuse_rejects_the_given_number_of_requests(api, client):
    api.refuse("services", 429, message="busy", retry_after_s=7, times=2)
    codes = [(await get(client, SERVICES))[0] for _ in range(3)]
    assert codes == [429, 429, 200]


async def test_refuse_can_start_after_a_number_of_requests(api, client):
    api.refuse("services", 403, after=1)
    codes = [(await get(client, SERVICES))[0] for _ in range(3)]
    assert codes == [200, 403, 200]


async def test_lists_can_be_limited_to_a_namespace_and_labels(api, client):
    for name, namespace in (("a", "shop"), ("b", "other")):
        labels = {"app": name}
        metadata = {"name": name, "namespace": namespace, "labels": labels}
        api.put({"kind": "Pod", "metadata": metadata})
    for path, found in (
        ("/api/v1/namespaces/shop/pods", ["a"]),
        ("/api/v1/pods?labelSelector=app=b", ["b"]),
        ("/api/v1/namespaces/shop/pods?labelSelector=app=b", []),
    ):
        _, page = await get(client, path)
        assert [item["metadata"]["name"] for item in page["items"]] == found


async def test_requests_without_the_token_are_rejected(api, client):
    api.token = "secret"
    assert (await get(client, SERVICES))[0] == 401
    headers = {"Authorization": "Bearer secret"}
    async with client.get(SERVICES, headers=headers) as response:
        assert response.status == 200


async def test_an_event_during_a_server_stall_is_never_sent(api, client):
    async with client.get(SERVICES, params={"watch": "1", "resourceVersion": "1000"}) as response:
        await api.until(lambda a: a.watch_count("services") == 1)
        api.be_silent()
        api.put(WEB)
        api.be_silent(False)
        api.put(WEB)
        assert await next_event(response) == ("MODIFIED", "1002")


async def test_a_stop_ends_watches_and_a_restart_uses_the_same_address(api, client):
    url = api.url
    api.put(WEB)
    async with client.get(SERVICES, params={"watch": "1", "resourceVersion": "1001"}) as response:
        await api.until(lambda a: a.watch_count("services") == 1)
        await api.stop()
        with pytest.raises(aiohttp.ClientError):
            await response.content.readline()
    await api.start()
    assert api.url == url
    assert len((await get(client, SERVICES))[1]["items"]) == 1


async def test_until_fails_at_its_timeout_and_lists_the_requests(api, client):
    await get(client, SERVICES)
    with pytest.raises(TimeoutError, match="not so after:\nGET /api/v1/services"):
        await api.until(lambda _: False, deadline_s=0.01)


async def test_a_lease_is_written_only_with_the_version_that_was_read(api, client):
    path = "/apis/coordination.k8s.io/v1/namespaces/shop/leases"
    lease = {"metadata": {"name": "one", "namespace": "shop"}}
    async with client.post(path, json=lease) as created:
        assert created.status == 201
        version = (await created.json())["metadata"]["resourceVersion"]
    async with client.post(path, json=lease) as again:
        assert again.status == 409
    lease["metadata"]["resourceVersion"] = version
    codes = []
    for _ in range(2):
        async with client.put(f"{path}/one", json=lease) as changed:
            codes.append(changed.status)
    assert codes == [200, 409]
    async with client.put(f"{path}/absent", json=lease) as absent:
        assert absent.status == 404


async def test_a_node_is_read_by_its_name(api, client):
    api.put({"kind": "Node", "metadata": {"name": "alice"}})
    assert (await get(client, "/api/v1/nodes/alice"))[1]["metadata"]["name"] == "alice"
    assert (await get(client, "/api/v1/nodes/bob"))[0] == 404


class TestFakeApiServer(ApiContract):
    @pytest.fixture
    def put(self, api):
        async def put(item):
            api.put(item)

        return put

    @pytest.fixture
    async def client(self, api, monkeypatch):
        monkeypatch.setenv("NO_PROXY", "*")
        client = ApiClient(Credentials(master=api.url))
        await client.open()
        yield client
        await client.close()

    @pytest.fixture
    def stranger(self, api, client):
        verbs, more = ("get", "list", "watch"), ("pods/log", "pods/portforward")
        api.denied = {f"{verb} {resource}" for verb in verbs for resource in (*PATHS, *more)}
        api.denied.add("create pods/portforward")
        return client
