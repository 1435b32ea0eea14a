"""The contract of an API server that forwards to agents, for the fake and for a real server.

A subclass provides the fixtures ``put``, which writes objects, ``client``, which has all rights,
and ``stranger``, which has no rights.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from userspace_proxy.errors import SourceError
from userspace_proxy.sources.kubernetes.client import ApiClient
from userspace_proxy.sources.kubernetes.lists import read_page, read_whole
from userspace_proxy.sources.kubernetes.responses import Response
from userspace_proxy_kubectl.port_forward import (
    ForwardTarget,
    PortForwardError,
    open_stream,
)
from userspace_proxy_kubectl.user_rights import check_access

from .objects import made

Put = Callable[[dict[str, Any]], Awaitable[None]]

PODS = "/api/v1/namespaces/default/pods"
CONTAINER = {"name": "main", "image": "none"}
LABELS = {"app.kubernetes.io/name": "userspace-proxy"}
SELECTOR = {"labelSelector": "app.kubernetes.io/name=userspace-proxy"}
DEADLINE_S = 120.0


def pod(name: str, labels: dict[str, str]) -> dict[str, Any]:
    """Return an unscheduled Pod."""
    spec = {"containers": [CONTAINER]}
    return made("Pod", name, spec, namespace="default", labels=labels)


def names_of(items: list[bytes]) -> list[str]:
    return [json.loads(item)["metadata"]["name"] for item in items]


def status_of(response: Response) -> tuple[int, str, str]:
    """Return the code, reason and message of a Status object."""
    body = json.loads(response.body)
    assert (body["kind"], body["status"], body["code"]) == ("Status", "Failure", response.code)
    return response.code, body["reason"], body["message"]


class ApiContract:
    """The tests of the contract."""

    @pytest.fixture
    async def pods(self, put: Put) -> list[str]:
        """Write five agents' pods, and a pod with other labels; return the agents' names."""
        agents = [f"agent-{number}" for number in range(5)]
        for name in agents:
            await put(pod(name, LABELS))
        await put(pod("other", {}))
        return agents

    async def test_a_paginated_list_is_complete_and_sorted(
        self, client: ApiClient, pods: list[str]
    ) -> None:
        found: list[bytes] = []
        query = {**SELECTOR, "limit": "2"}
        assert await read_whole(client, PODS, query, found.extend) is None
        assert names_of(found) == pods

    async def test_a_missing_pod_is_not_found(self, client: ApiClient, pods: list[str]) -> None:
        for what in ("portforward", "log"):
            response = await client.get(f"{PODS}/gone/{what}", {"ports": "10249"})
            assert status_of(response) == (404, "NotFound", 'pods "gone" not found')
        with pytest.raises(PortForwardError, match='pod default/gone, port 1: pods "gone" not f'):
            await open_stream(client, ForwardTarget("default", "gone", 1))

    async def test_a_port_forward_to_an_unscheduled_pod_is_rejected_and_its_log_is_empty(
        self, client: ApiClient, pods: list[str]
    ) -> None:
        with pytest.raises(PortForwardError, match="pod agent-0 does not have a host assigned"):
            await open_stream(client, ForwardTarget("default", "agent-0", 10249))
        response = await client.get(f"{PODS}/agent-0/log", {"tailLines": "10"})
        assert (response.code, response.body) == (204, b"")

    async def test_a_forbidden_list_returns_403(self, stranger: ApiClient, pods: list[str]) -> None:
        for path, kind, place in (
            (PODS, "pods", 'in the namespace "default"'),
            ("/api/v1/pods", "pods", "at the cluster scope"),
            ("/api/v1/nodes", "nodes", "at the cluster scope"),
        ):
            response = await read_page(stranger, path, SELECTOR, lambda _items: None)
            assert isinstance(response, Response)
            code, reason, message = status_of(response)
            assert (code, reason) == (403, "Forbidden")
            assert message.startswith(f"{kind} is forbidden: User ")
            assert message.endswith(f' cannot list resource "{kind}" in API group "" {place}')

    async def test_forbidden_port_forwards_and_logs_are_rejected(
        self, stranger: ApiClient, pods: list[str]
    ) -> None:
        with pytest.raises(PortForwardError, match='cannot get resource "pods/portforward"') as no:
            await open_stream(stranger, ForwardTarget("default", "agent-0", 10249))
        assert "allow this user to get and create pods/portforward" in no.value.hint
        response = await stranger.get(f"{PODS}/agent-0/log", {})
        assert status_of(response)[:2] == (403, "Forbidden")

    async def test_check_access_passes_for_an_authorized_user(self, client: ApiClient) -> None:
        # check_access() opens the client again, so close it.
        await client.close()
        await check_access(client, "default", within_s=DEADLINE_S)

    async def test_check_access_fails_for_an_unauthorized_user(self, stranger: ApiClient) -> None:
        await stranger.close()
        with pytest.raises(SourceError) as refused:
            await check_access(stranger, "default", within_s=DEADLINE_S)
        assert (
            "to list services, watch services, list endpointslices, watch endpointslices, get "
            "pods/portforward, create pods/portforward in namespace default"
        ) in str(refused.value)
