"""Whether the API server permits to read, also the Leases by which nodes agree to scale to zero."""

import asyncio

import pytest

from userspace_proxy.check.api_server import judge_server, look_at_wake
from userspace_proxy.config import Settings
from userspace_proxy_testing.fakes.api_server import FakeApiServer


def test_a_server_that_permits_reading_is_ok():
    (found,) = judge_server("https://192.0.2.1", (), "v1.36.3")
    assert str(found) == (
        "ok       API server: Services, EndpointSlices and this Node can be read "
        "(Kubernetes v1.36.3) [https://192.0.2.1]"
    )


def test_pods_are_named_if_they_are_read():
    (found,) = judge_server("https://192.0.2.1", (), "", with_pods=True)
    assert "EndpointSlices, Pods and this Node can be read" in found.what


def test_each_refusal_is_an_error():
    found = judge_server("https://192.0.2.1", ("no services", "no nodes"), "")
    assert [f"{f.mark}: {f.what}" for f in found] == ["error: no services", "error: no nodes"]


@pytest.fixture
async def api(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "*")
    async with FakeApiServer() as api:
        yield api


async def look(api, **settings):
    found = Settings(master=api.url, allow_wake=True, **settings)
    return [str(each) for each in await asyncio.to_thread(look_at_wake, found, "node-1")]


async def test_leases_that_can_be_read_are_ok(api):
    assert await look(api) == [
        "ok       wake: Leases of the namespace userspace-proxy can be read [0 now]"
    ]


async def test_a_missing_permission_is_an_error_with_the_remedy(api):
    api.refuse("leases", 403, message="no")
    (line,) = await look(api)
    assert line.startswith(f"error    wake: the API server at {api.url} refuses to list leases: no")
    assert "allow this user to get, list, watch, create and update leases" in line


async def test_where_nothing_may_be_scaled_nothing_is_asked():
    assert look_at_wake(Settings(master="http://192.0.2.1"), "node-1") == []
    assert look_at_wake(Settings(manifests="shop", allow_wake=True), "node-1") == []


async def test_a_server_that_is_gone_is_an_error(api):
    await api.stop()
    (line,) = await look(api)
    assert line.startswith("error    wake: cannot reach the API server")
