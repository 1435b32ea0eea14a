"""Tests of the aiohttp resolver, which returns the addresses and actual ports of Services."""

import socket

import pytest

from userspace_proxy.lookup.aiohttp_resolver import ServiceResolver
from userspace_proxy.lookup.in_process import ProcessNames
from userspace_proxy.names import FoundName

from .names import ShopNames


class Localhost:
    def find(self, host):
        return FoundName("localhost.", ("127.0.0.1",)) if host == "localhost" else None

    def reached(self, ip, port, *, is_udp):
        return ip, port


@pytest.fixture
async def resolver():
    resolver = ServiceResolver(ShopNames())
    yield resolver
    await resolver.close()


async def test_a_service_resolves_to_its_address_and_actual_port(resolver):
    (found,) = await resolver.resolve("v4.shop", 80)
    assert (found["hostname"], found["host"], found["port"]) == ("v4.shop", "127.64.0.11", 8000)
    assert found["family"] == socket.AF_INET


async def test_addresses_of_both_families_are_resolved(resolver):
    found = await resolver.resolve("web", 8080, socket.AF_UNSPEC)
    assert [item["host"] for item in found] == ["127.64.0.10", "::1"]


@pytest.mark.parametrize("host", ["localhost", "db"])
async def test_names_that_belong_to_no_service_are_resolved_by_the_default_resolver(resolver, host):
    # With only loopback, AI_ADDRCONFIG, which aiohttp sets, makes all look-ups fail.
    with ProcessNames(Localhost()):
        found = await resolver.resolve(host, 5432)
    assert [(item["host"], item["port"]) for item in found] == [("127.0.0.1", 5432)]


async def test_a_nonexistent_service_is_an_error(resolver):
    with pytest.raises(OSError, match=r"none\.shop"):
        await resolver.resolve("none.shop.svc.cluster.local", 80)
