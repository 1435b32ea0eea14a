"""Fake agents, through the port-forward of the fake API server."""

from __future__ import annotations

import asyncio

import pytest

from tests.unit.dataplane.waiting import until
from userspace_proxy.sources.kubernetes.client import ApiClient
from userspace_proxy_kubectl.port_forward import (
    ForwardTarget,
    open_stream,
)
from userspace_proxy_testing.fakes.agent_answers import HOSTILE, fixed
from userspace_proxy_testing.fakes.agents import AgentRequest, FakeAgents

DEADLINE_S = 60.0
GET = b"GET /api/v1/status HTTP/1.0\r\nHost: localhost\r\n\r\n"


async def ask(client: ApiClient, pod: str, port: int = 10249) -> bytes:
    """Send a request to a pod; return the whole response."""
    async with asyncio.timeout(DEADLINE_S):
        stream = await open_stream(client, ForwardTarget("kube-system", pod, port))
        try:
            await stream.send(GET)
            parts = []
            while part := await stream.receive():
                parts.append(part)
            return b"".join(parts)
        finally:
            await stream.close()


async def test_each_pod_returns_its_own_response(api, client):
    agents = FakeAgents(api)
    pods = [agents.add(f"node-{i}", fixed(b"%d" % i)) for i in range(3)]
    answers = await asyncio.gather(*(ask(client, pod) for pod in pods))
    assert [answer.rpartition(b"\r\n\r\n")[2] for answer in answers] == [b"0", b"1", b"2"]


async def test_the_bytes_exchanged_with_each_node_are_counted(api, client):
    agents = FakeAgents(api)
    one, _ = agents.add("node-1", fixed(b"x" * 1000)), agents.add("node-2", fixed(b""))
    before = agents.passed_bytes("node-1")
    answer = await ask(client, one)
    cost = agents.passed_bytes("node-1") - before
    assert len(GET) + len(answer) < cost < len(GET) + len(answer) + 100
    assert agents.passed_bytes("node-2") == 0


@pytest.mark.parametrize("name", HOSTILE)
async def test_a_client_can_disconnect_from_a_hostile_response(api, client, name):
    pod = FakeAgents(api).add("node-1", HOSTILE[name]())
    stream = await open_stream(client, ForwardTarget("kube-system", pod, 10249))
    await stream.send(GET)
    if name != "silent":
        async with asyncio.timeout(DEADLINE_S):
            assert bool(await stream.receive()) is (name != "closes")
    await stream.close()
    await until(lambda: api.pods.open == 0)


def test_a_request_is_parsed():
    head = (
        b"GET /a%20b?view=summary&also=x/y&also=z&watch HTTP/1.1\r\nAccept-Encoding: gzip\r\n\r\n"
    )
    assert AgentRequest.parse(head) == AgentRequest(
        "GET",
        "/a b",
        {"view": ["summary"], "also": ["x/y", "z"], "watch": [""]},
        {"accept-encoding": "gzip"},
        is_chunked=True,
    )
