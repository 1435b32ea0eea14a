"""Checking whether an API server responds and permits reads, with the fake API server."""

from __future__ import annotations

import socket

from userspace_proxy.model import Node
from userspace_proxy.sources.kubernetes.permissions import ask_server

from .objects import node, service


async def ask(api, *, master="", kubeconfig="", within_s=10.0, **options):
    return await ask_server(
        kubeconfig=kubeconfig,
        master=master or api.url,
        node_name="alice",
        within_s=within_s,
        **options,
    )


async def test_a_server_permitting_reads_returns_its_version_and_service_addresses(api):
    api.put(service())
    api.put(node())
    report = await ask(api)
    assert (report.problems, report.version, report.service_ips) == ((), "v1.36.3", ("10.96.7.1",))
    assert api.requests[0] == "GET /api/v1/services?limit=1"


async def test_a_missing_node_is_returned_with_similar_names(api):
    api.put(node("alice-1"))
    assert (await ask(api)).node == Node("alice", is_missing=True, similar=("alice-1",))
    api.put(node())
    assert (await ask(api)).node is None


async def test_each_forbidden_resource_is_reported(api):
    api.refuse("endpointslices", 403, message="endpointslices is forbidden")
    api.refuse("nodes", 403, message="nodes is forbidden")
    report = await ask(api)
    assert [line.partition(" (")[0] for line in report.problems] == [
        f"the API server at {api.url} refuses to list endpointslices: endpointslices is forbidden",
        f"the API server at {api.url} refuses to list nodes: nodes is forbidden",
    ]


async def test_a_silent_server_times_out():
    # The kernel accepts the connection, but no program reads the request.
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        report = await ask(None, master=url, within_s=0.2)
    assert report.problems == (f"cannot reach the API server at {url}: no answer within 0.2 s",)


async def test_a_missing_kubeconfig_is_reported(api):
    (problem,) = (await ask(api, kubeconfig="/nowhere")).problems
    assert "/nowhere: No such file" in problem


async def test_pods_are_requested_only_if_endpoints_are_derived_from_them(api):
    api.refuse("pods", 403, message="pods is forbidden")
    assert (await ask(api)).problems == ()
    (problem,) = (await ask(api, endpoints_from_pods=True)).problems
    assert "refuses to list pods" in problem


async def test_wrong_credentials_are_reported_as_a_single_problem(api):
    api.token = "secret"
    (problem,) = (await ask(api)).problems
    assert problem.count("Unauthorized") == 1
