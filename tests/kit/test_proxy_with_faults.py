"""A proxy whose endpoints can have faults, in the test's event loop or in a thread."""

import inspect

import pytest

from tests.unit.agent.backends import ask, backend
from tests.unit.embedding.test_blocking import OTHERS
from userspace_proxy.causes.cause import CauseCode
from userspace_proxy.embedding.arguments import read_endpoint
from userspace_proxy.errors import ConfigError
from userspace_proxy.model import (
    Endpoint,
    EndpointSlice,
    IPFamily,
    Protocol,
    Service,
    ServiceKey,
    ServicePort,
    SliceKey,
    SlicePort,
)
from userspace_proxy_testing.proxy_with_faults import BlockingProxyWithFaults, ProxyWithFaults


def test_a_services_faults_last_until_removed(run, caplog):
    async def main():
        async with backend(b"one") as one, ProxyWithFaults() as proxy:
            web = await proxy.add_service("web", port=8080, endpoints=[one])
            assert proxy.faults_of(web.key) == {}
            proxy.add_fault(web.key, "reset_peer", at_connect=True)
            with pytest.raises(ConnectionResetError):
                await ask(web.address)
            (port,) = proxy.status().ports
            assert port.endpoints[0].cause.code is CauseCode.FAULT_ON_PURPOSE
            assert list(proxy.faults_of(web.key).values()) == [
                ["reset_peer(at_connect=True) downstream"]
            ]
            proxy.remove_faults(web.key)
            assert await ask(web.address) == b"one"
            assert proxy.faults_of(web.key) == {}
            assert proxy.status().ports[0].endpoints[0].cause is None

    run(main())
    # An exception in a task of a faulty connection would be logged here.
    assert not [record for record in caplog.records if record.name == "asyncio"]


def test_removing_a_service_removes_its_faults(run):
    async def main():
        async with backend(b"one") as one, ProxyWithFaults() as proxy:
            web = await proxy.add_service("web", port=8080, endpoints=[one])
            proxy.add_fault(web.key, "refuse")
            await web.remove()
            assert proxy.faults_of(web.key) == {}
            web = await proxy.add_service("web", port=8080, endpoints=[one])
            assert await ask(web.address) == b"one"

    run(main())


def test_faults_end_with_the_proxy(run):
    async def main():
        async with backend(b"one") as one, ProxyWithFaults() as proxy:
            web = await proxy.add_service("web", port=8080, endpoints=[one])
            proxy.add_fault(web.key, "latency", latency=1)
            ((server,),) = [each.values() for each in proxy.faults._servers.values()]
        with pytest.raises(ConnectionRefusedError):
            await ask(server.address)

    run(main())


def test_a_fault_needs_an_existing_service_and_endpoint(run):
    async def main():
        async with ProxyWithFaults() as proxy:
            web = await proxy.add_service("web", port=8080, endpoints=["127.0.0.1:1"])
            with pytest.raises(LookupError, match=r"default/web has no endpoint 127\.0\.0\.1:2"):
                proxy.add_fault(web.key, "refuse", endpoint="127.0.0.1:2")
            await web.remove()
            with pytest.raises(LookupError, match="there is no Service default/web"):
                proxy.add_fault(web.key, "refuse")

    run(main())


@pytest.mark.parametrize("protocols", [("TCP", "UDP"), ("UDP", "TCP")], ids="-".join)
def test_tcp_and_udp_at_one_address_have_separate_faults(run, protocols):
    ports = tuple(ServicePort(protocol.lower(), 8080, protocol) for protocol in protocols)
    web = Service(ServiceKey("default", "web"), ports, cluster_ips=("127.64.0.1",))

    async def main():
        async with backend(b"one") as one, ProxyWithFaults() as proxy:
            address = read_endpoint(one)
            slice_ports = tuple(SlicePort(p.name, address.port, p.protocol) for p in ports)
            key = SliceKey("default", "web-1")
            endpoints = (Endpoint(address.ip),)
            item = EndpointSlice(key, web.key, IPFamily.IPV4, slice_ports, endpoints)
            await proxy.put(web, [item])

            def suffering():
                shown = proxy.status().ports
                return {p.plan.protocol for p in shown if p.endpoints[0].cause is not None}

            proxy.add_fault(web.key, "loss", percent=100)
            assert suffering() == {Protocol.UDP}
            assert await ask(proxy.address_of(web.key, "tcp")) == b"one"
            proxy.add_fault(web.key, "latency", endpoint=one, latency=1)
            assert suffering() == {*Protocol}
            assert len(proxy.faults_of(web.key)[address]) == 3
            with pytest.raises(ConfigError, match="there is no fault 'slow'"):
                proxy.add_fault(web.key, "slow")
            proxy.remove_faults(web.key, endpoint=one)
            assert suffering() == set()

    run(main())


def test_removing_a_service_in_a_thread_removes_its_faults():
    with ProxyWithFaults.in_thread() as proxy:
        web = proxy.add_service("web", port=8080, endpoints=["127.0.0.1:1"])
        proxy.add_fault(web.key, "latency", latency=1)
        assert list(proxy.faults_of(web.key).values()) == [["latency(latency=1) downstream"]]
        proxy.delete(web.key)
        assert proxy.faults_of(web.key) == {}


def test_the_blocking_proxy_offers_every_call_without_await():
    names = {name for name in dir(ProxyWithFaults) if not name.startswith("_")}
    # in_thread() itself creates the blocking proxy.
    for name in names - OTHERS - {"in_thread"}:
        call, awaited = getattr(BlockingProxyWithFaults, name), getattr(ProxyWithFaults, name)
        assert not inspect.iscoroutinefunction(call), name
        if name in vars(BlockingProxyWithFaults):
            assert inspect.signature(call) == inspect.signature(awaited), name
