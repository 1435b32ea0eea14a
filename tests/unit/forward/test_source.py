"""Tests of a proxy that dials pods through port-forwards of a fake API server."""

import asyncio
import contextlib
from socket import create_connection

import pytest

from userspace_proxy.agent.rounds.options import Options
from userspace_proxy.dataplane import Tuning
from userspace_proxy.embedding import Proxy
from userspace_proxy.errors import SourceError
from userspace_proxy.model import ServiceKey
from userspace_proxy_kubectl.forward.source import ForwardSource
from userspace_proxy_testing.fakes.api_server import FakeApiServer

from ..agent.backends import ask
from .pods import Pods, endpoint, endpoint_slice, service

WEB = ServiceKey("shop", "web")
EVIL = ServiceKey("tenant", "evil")
# The timeout is long, because no test depends on it and the machine may be busy.
PATIENT = Tuning(connect_timeout_s=20)

pytestmark = pytest.mark.usefixtures("nothing_of_this_machine")


@pytest.fixture
async def pods():
    async with contextlib.AsyncExitStack() as stack:
        api = await stack.enter_async_context(FakeApiServer())
        api.put(service())
        yield Pods(api, stack)


@contextlib.asynccontextmanager
async def forwarding(api, **more):
    """Run a proxy for the Services of the fake API server; yield once they are applied."""
    source = ForwardSource(kubeconfig="", master=api.url, **more)
    options = source.options(Options(tuning=PATIENT))
    async with Proxy(source=source, options=options) as proxy:
        await source.published.wait()
        await proxy.settled()
        yield source, proxy


async def test_connections_are_balanced_over_pods(pods):
    names = {await pods.start(), await pods.start()}
    async with forwarding(pods.api) as (_, proxy):
        address = proxy.address_of(WEB, "http")
        answers = [(await ask(address)).decode() for _ in range(4)]
    assert set(answers) == names
    assert [answers.count(name) for name in names] == [2, 2]


async def test_a_forward_source_serves_a_program_without_an_event_loop(pods):
    await pods.start()

    def ask_by_name():
        source = ForwardSource(kubeconfig="", master=pods.api.url, namespace="shop")
        with Proxy.in_thread(source=source, options=source.options()) as proxy:
            proxy.settled()
            with proxy.names("shop"), create_connection(("web", 80)) as client:
                return client.recv(100)

    assert await asyncio.to_thread(ask_by_name) == b"web-1"


@pytest.mark.parametrize("end", ["is gone", "refuses"])
async def test_a_terminating_pod_fails_no_connection(pods, end):
    first, second = await pods.start(), await pods.start()
    async with forwarding(pods.api) as (_, proxy):
        address = proxy.address_of(WEB, "http")
        # As in a real cluster, the EndpointSlice lists the pod for some more time.
        if end == "is gone":
            pods.api.pods.kill(first, "shop")
        else:
            pods.api.pods.run(first, {}, "shop")
        assert {await ask(address) for _ in range(6)} == {second.encode()}
        (port,) = proxy.status().ports
        assert port.saved >= 1
        assert port.refused == 0


async def test_a_slice_in_another_namespace_gets_no_clients(pods):
    name = await pods.start()
    async with contextlib.AsyncExitStack() as stack:
        tenant = Pods(pods.api, stack, "tenant", "evil")
        pods.api.put(service("evil", "tenant"))
        evil = await tenant.start()
        async with forwarding(pods.api) as (source, proxy):
            (ours,), (theirs,) = (source.services.pods[f"{key}:http"] for key in (WEB, EVIL))
            assert ours == theirs
            for key, expected in ((WEB, name), (EVIL, evil)):
                answers = {(await ask(proxy.address_of(key, "http"))).decode() for _ in range(3)}
                assert answers == {expected}


async def test_connections_reach_new_pods_and_not_removed_services(pods):
    first = await pods.start()
    async with forwarding(pods.api) as (source, proxy):
        source.published.clear()
        second = await pods.start()
        await source.published.wait()
        await proxy.settled()
        address = proxy.address_of(WEB, "http")
        assert {await ask(address) for _ in range(2)} == {first.encode(), second.encode()}
        source.published.clear()
        pods.api.delete("Service", "web", "shop")
        await source.published.wait()
        await proxy.settled()
        assert proxy.address_of(WEB, "http") is None


async def test_replacement_pods_are_served_even_if_watches_are_silent(pods):
    """While a laptop sleeps, a NAT drops its watches, and pods are replaced."""
    api, old = pods.api, await pods.start()
    async with forwarding(api) as (source, proxy):
        address = proxy.address_of(WEB, "http")
        await api.until(lambda api: api.watch_count("services") == 1)
        await api.until(lambda api: api.watch_count("endpointslices") == 1)
        await ask(address)
        source.published.clear()
        api.be_silent()
        new = await pods.start()
        api.put(endpoint_slice(endpoint(new, "10.244.0.2")))
        api.pods.kill(old, "shop")
        before = len(api.requests)
        outcomes = await asyncio.gather(*(ask(address) for _ in range(20)), return_exceptions=True)
        assert {type(each) for each in outcomes} == {ConnectionResetError}
        await source.published.wait()
        await proxy.settled()
        assert await ask(address) == new.encode()
        # All failed dials share one new watch and one request for the version, without a list.
        again = [each for each in api.requests[before:] if "/endpointslices" in each]
        assert ["watch=1" in each for each in again] == [True, False]
        assert "limit=1&" in again[1]


async def test_only_requested_services_are_read_and_served(pods):
    await pods.start()
    pods.api.put(service("db"))
    pods.api.put(service("web", "other"))
    async with forwarding(pods.api, namespace="shop", wanted=frozenset({WEB})) as (_, proxy):
        assert [port.plan.key.name.service for port in proxy.status().ports] == [WEB]
    lists = [request for request in pods.api.requests if "limit" in request]
    assert lists
    assert all("/namespaces/shop/" in request for request in lists)


async def test_after_an_api_server_outage_services_are_forwarded_again_at_the_same_address(pods):
    await pods.start()
    async with forwarding(pods.api) as (source, proxy):
        address = proxy.address_of(WEB, "http")
        await pods.api.stop()
        with pytest.raises(ConnectionResetError):
            await ask(address)
        await pods.api.start()
        assert proxy.address_of(WEB, "http") == address
        assert source.status().is_synced
        assert await ask(address) == b"web-1"


def test_an_unusable_api_server_url_is_an_error():
    with pytest.raises(SourceError, match=r"ftp://example.invalid: it is not an http\(s\) URL"):
        ForwardSource(kubeconfig="", master="ftp://example.invalid")


@pytest.mark.parametrize("right", ["create pods/portforward", "list endpointslices"])
async def test_check_access_raises_an_error_for_a_missing_permission(pods, right):
    pods.api.denied.add(right)
    source = ForwardSource(kubeconfig="", master=pods.api.url, namespace="shop")
    with pytest.raises(SourceError, match=f"doesn't allow this user to {right} in namespace shop"):
        await source.check_access()
    pods.api.denied.clear()
    await source.check_access()
