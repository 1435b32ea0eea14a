"""The proxy accepts the demo's manifests without a problem."""

import asyncio

from userspace_proxy.cluster import Snapshot
from userspace_proxy.model import Balance
from userspace_proxy.sources import ManifestSource
from userspace_proxy_testing.commands.demo_manifests import manifests_for, sample_traffic
from userspace_proxy_testing.sandbox.traffic import target

PODS = {
    name: f"10.244.0.{number}"
    for number, name in enumerate(("web-1", "web-2", "web-3", "dns-1", "dns-2", "broken"), 1)
}


async def read(path):
    source = ManifestSource(path)
    first = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(source.run(lambda s: first.done() or first.set_result(s)))
    try:
        snapshot: Snapshot = await asyncio.wait_for(first, 60)
        return snapshot, source.status()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_the_sample_services_load_without_problems(tmp_path):
    path = tmp_path / "shop.yaml"
    path.write_text(manifests_for(PODS))
    snapshot, status = await read(path)
    assert status.problems == ()
    services = {key.name: state for key, state in snapshot.services.items()}
    assert services.keys() == {"web", "cart", "flaky", "api", "dns"}
    assert services["cart"].service.affinity_timeout_s == 600
    assert services["api"].service.handling.balance is Balance.LEAST_CONNECTIONS
    assert services["dns"].service.ports[0].protocol == "UDP"
    assert [e.ip for s in services["flaky"].slices for e in s.endpoints] == [
        PODS["broken"],
        PODS["web-3"],
    ]


def test_background_traffic_requests_each_sample_service():
    targets = [target(text) for text in sample_traffic()]
    assert [(to.protocol, to.host, to.port) for to in targets] == [
        ("http", "10.96.0.10", 80),
        ("http", "10.96.0.20", 80),
        ("http", "10.96.0.30", 80),
        ("http", "10.96.0.40", 80),
        ("udp", "10.96.0.53", 53),
    ]
