"""The demo's manifests are manifests that the proxy itself finds good."""

import asyncio

from userspace_proxy.cli.demo_manifests import manifests_for
from userspace_proxy.cluster import Snapshot
from userspace_proxy.sources import ManifestSource

PODS = {
    name: f"10.244.0.{number}"
    for number, name in enumerate(("web-1", "web-2", "web-3", "dns-1", "dns-2", "gone"), 1)
}


async def read(path):
    source = ManifestSource(path)
    first = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(source.run(lambda s: first.done() or first.set_result(s)))
    try:
        snapshot: Snapshot = await asyncio.wait_for(first, 5)
        return snapshot, source.status()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_the_sample_services_are_read_without_a_problem(tmp_path):
    path = tmp_path / "shop.yaml"
    path.write_text(manifests_for(PODS))
    snapshot, status = await read(path)
    assert status.problems == ()
    services = {key.name: state for key, state in snapshot.services.items()}
    assert services.keys() == {"web", "cart", "flaky", "dns"}
    assert services["cart"].service.affinity_timeout_s == 600
    assert services["dns"].service.ports[0].protocol == "UDP"
    assert [e.ip for s in services["flaky"].slices for e in s.endpoints] == [
        PODS["gone"],
        PODS["web-3"],
    ]
