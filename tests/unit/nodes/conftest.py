"""Fixtures: a fake API server with agents behind it, and readers of these agents."""

from __future__ import annotations

import asyncio

import pytest

from userspace_proxy.sources.kubernetes.client import ApiClient
from userspace_proxy.sources.kubernetes.credentials import Credentials
from userspace_proxy_kubectl.nodes.reader import NodesReader
from userspace_proxy_testing.fakes.agents import FakeAgents

from ..dataplane.waiting import until


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
def reader_of(api):
    """Return a function that creates readers of the fake API server's agents."""

    def reader_of(*args, **options):
        options = {"with_plans": False, **options}
        return NodesReader(ApiClient(Credentials(master=api.url)), *args, **options)

    return reader_of
