"""The names of Services, read once."""

import pytest

from tests.unit.sources.kubernetes.objects import service
from userspace_proxy.errors import SourceError
from userspace_proxy.model import ServiceKey
from userspace_proxy.sources.kubernetes.service_names import read_service_names
from userspace_proxy_testing.fakes.api_server import FakeApiServer


async def test_the_names_of_a_namespace_or_of_all_are_read():
    other = service("db")
    other["metadata"]["namespace"] = "shop"
    async with FakeApiServer() as api:
        api.put(service())
        api.put(other)

        async def read(namespace):
            return await read_service_names("", api.url, namespace=namespace, within_s=20)

        assert await read("shop") == [ServiceKey("shop", "db")]
        assert sorted(await read("")) == [ServiceKey("default", "web"), ServiceKey("shop", "db")]


async def test_what_is_denied_is_an_error():
    async with FakeApiServer() as api:
        api.refuse("services", 403, message="not for you")
        with pytest.raises(SourceError, match="not for you"):
            await read_service_names("", api.url, namespace="", within_s=20)
