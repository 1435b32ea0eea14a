"""Tests of checking whether the API server permits all reads, and use of Leases for scaling."""

import asyncio

import pytest

from userspace_proxy.check.api_server import judge_server, look_at_wake
from userspace_proxy.config import Settings
from userspace_proxy.model import Node

URL = "https://192.0.2.1"
MISSING = Node("a", is_missing=True, similar=("a.b",))


@pytest.mark.parametrize(
    ("options", "kinds"),
    [
        ({}, "Services, EndpointSlices and this Node"),
        ({"with_pods": True}, "Services, EndpointSlices, Pods and this Node"),
        ({"node": MISSING}, "Services and EndpointSlices"),
    ],
)
def test_kinds_that_can_be_read_are_reported_as_ok(options, kinds):
    first = judge_server(URL, (), "v1.36.3", **options)[0]
    assert str(first) == f"ok       API server: {kinds} can be read (Kubernetes v1.36.3) [{URL}]"


def test_a_missing_node_object_is_a_warning():
    _, found = judge_server(URL, (), "", node=MISSING)
    assert (found.mark, found.what) == ("warning", "there is no Node a (did you mean a.b?)")
    assert "--hostname-override" in found.hint


def test_each_denied_request_is_an_error():
    found = judge_server(URL, ("no services", "no nodes"), "")
    assert [f"{f.mark}: {f.what}" for f in found] == ["error: no services", "error: no nodes"]


async def look(api, **settings):
    found = Settings(master=api.url, allow_wake=True, **settings)
    return [str(each) for each in await asyncio.to_thread(look_at_wake, found, "node-1")]


async def test_leases_that_can_be_read_are_reported_as_ok(api):
    assert await look(api) == [
        "ok       wake: Leases of the namespace userspace-proxy can be read [0 now]"
    ]


async def test_a_missing_permission_is_an_error_with_the_remedy(api):
    api.refuse("leases", 403, message="no")
    (line,) = await look(api)
    assert line.startswith(f"error    wake: the API server at {api.url} refuses to list leases: no")
    assert "allow this user to get, list, watch, create and update leases" in line


async def test_the_api_server_is_not_queried_if_scaling_is_off_or_impossible():
    assert look_at_wake(Settings(master="http://192.0.2.1"), "node-1") == []
    assert look_at_wake(Settings(manifests="shop", allow_wake=True), "node-1") == []


async def test_an_unreachable_api_server_is_an_error(api):
    await api.stop()
    (line,) = await look(api)
    assert line.startswith("error    wake: cannot reach the API server")
