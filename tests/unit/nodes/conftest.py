"""Fixtures: a fake API server with agents behind it, and readers of these agents."""

from __future__ import annotations

import asyncio

import pytest

from userspace_proxy.sources.kubernetes.client import ApiClient
from userspace_proxy.sources.kubernetes.credentials import Credentials
from userspace_proxy_kubectl.nodes.reader import NodesReader
from userspace_proxy_testing.fakes.agents import FakeAgents
from userspace_proxy_testing.fakes.api_server import FakeApiServer

from ..dataplane.waiting import until


@pytest.fixture(autouse=True)
def nothing_of_this_machine(monkeypatch):
    """Use neither a proxy nor the machine's certificates, which take 56 ms to load."""
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("SSL_CERT_FILE", "/dev/null")
    monkeypatch.setenv("SSL_CERT_DIR", "/dev/null")


@pytest.fixture
async def api():
    async with FakeApiServer() as api:
        yield api


@pytest.fixture
def agents(api):
    return FakeAgents(api)


@pytest.fixture
def streams(api):
    """Return a function that waits until exactly this many streams to agents are open."""

    async def streams(count):
        # This deadline is below SILENT_S, after which a leaked stream would end by itself.
        async with asyncio.timeout(8):
            await until(lambda: api.pods.open == count)

    return streams


@pytest.fixture
async def client(api):
    client = ApiClient(Credentials(master=api.url))
    await client.open()
    yield client
    await client.close()


@pytest.fixture
def reader_of(api):
    """Return a function that creates readers of the fake API server's agents."""

    def reader_of(*args, **options):
        options = {"with_plans": False, **options}
        return NodesReader(ApiClient(Credentials(master=api.url)), *args, **options)

    return reader_of
