"""Fixtures: a fake API server, and sources that read it without pauses."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import pytest

from userspace_proxy.sources.kubernetes import KubernetesSource
from userspace_proxy.sources.kubernetes.client import ApiClient
from userspace_proxy.sources.kubernetes.credentials import Credentials
from userspace_proxy.sources.kubernetes.reflector import Timing
from userspace_proxy_testing.fakes.api_server import FakeApiServer

QUICK = Timing(backoff_base_s=0.001, backoff_cap_s=0.002)


@pytest.fixture(autouse=True)
def nothing_of_this_machine(monkeypatch):
    """Dial the fake directly, and don't load the machine's certificates, which takes 56 ms."""
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("SSL_CERT_FILE", "/dev/null")
    monkeypatch.setenv("SSL_CERT_DIR", "/dev/null")


@pytest.fixture
async def api() -> AsyncIterator[FakeApiServer]:
    async with FakeApiServer() as api:
        yield api


@pytest.fixture
async def client(api: FakeApiServer) -> AsyncIterator[ApiClient]:
    client = ApiClient(Credentials(master=api.url))
    await client.open()
    yield client
    await client.close()


@pytest.fixture
def source_of() -> Callable[..., KubernetesSource]:
    def source_of(api: FakeApiServer, **options) -> KubernetesSource:
        return KubernetesSource(**{"master": api.url, "timing": QUICK, **options})

    return source_of
