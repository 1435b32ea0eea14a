"""The Kubernetes source with a real kube-apiserver: the contract, and what only it can test."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.sources.kubernetes.contract import NODE_NAME, SourceContract, endpoints
from tests.unit.sources.kubernetes.history_contract import HistoryCluster, HistoryContract
from tests.unit.sources.kubernetes.objects import endpoint_slice, node, service
from tests.unit.sources.running import running
from userspace_proxy.sources.kubernetes import KubernetesSource
from userspace_proxy.sources.kubernetes.client import ApiClient
from userspace_proxy.sources.kubernetes.credentials import Credentials
from userspace_proxy.sources.kubernetes.reflector import Timing

from .control_plane import ControlPlane
from .credentials import ADMIN, token_of
from .waiting import wait_for

pytestmark = pytest.mark.cluster

QUICK = Timing(backoff_base_s=0.05, backoff_cap_s=0.1)


class RealCluster(HistoryCluster):
    """The control plane, changed with kubectl."""

    def __init__(self, control_plane: ControlPlane) -> None:
        self._control_plane = control_plane

    async def put(self, item: dict[str, Any]) -> None:
        await asyncio.to_thread(self._control_plane.apply, item)

    async def delete(self, kind: str, name: str) -> None:
        await self.kubectl("delete", kind, name)

    async def stop(self) -> None:
        await asyncio.to_thread(self._control_plane.stop_apiserver)

    async def start(self) -> None:
        await asyncio.to_thread(self._control_plane.start_apiserver)

    def source(self, **options: Any) -> KubernetesSource:
        return KubernetesSource(
            **{
                "kubeconfig": str(self._control_plane.kubeconfig),
                "node_name": NODE_NAME,
                "timing": QUICK,
                **options,
            }
        )

    async def client(self) -> ApiClient:
        client = ApiClient(Credentials(kubeconfig=str(self._control_plane.kubeconfig)))
        await client.open()
        return client

    async def kubectl(self, *args: str) -> str:
        return await asyncio.to_thread(self._control_plane.kubectl, *args)


@pytest.fixture
def cluster(control_plane: ControlPlane, monkeypatch: pytest.MonkeyPatch) -> Iterator[RealCluster]:
    monkeypatch.setenv("NO_PROXY", "*")
    yield RealCluster(control_plane)
    # One request per kind, because kubectl's --all sends one per object. Only the Service
    # kubernetes, which the API server maintains, has the label provider.
    for path in (
        "/api/v1/namespaces/default/services?labelSelector=%21provider",
        "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices",
        "/api/v1/nodes",
    ):
        control_plane.kubectl("delete", "--raw", path)


class TestContract(SourceContract):
    """The contract that all API servers fulfil."""


class TestHistory(HistoryContract):
    """The contract for revisions of lists and watches."""


async def test_expired_watches_resume_without_a_list(cluster: RealCluster) -> None:
    await cluster.put(service())
    source = cluster.source(timing=Timing(watch_s=1, healthy_s=0.5), rng=random.Random(1))
    async with running(source) as published:
        await published.first()
        for n in range(1, 6):
            await cluster.put(endpoint_slice(f"10.244.1.{n}"))
            wanted = [f"10.244.1.{n}"]
            await published.until(lambda s, wanted=wanted: endpoints(s) == wanted)  # type: ignore[misc]
        assert source.status().restarts == 0


async def test_a_compacted_revision_causes_a_new_list_and_loses_no_change(
    cluster: RealCluster,
) -> None:
    await cluster.put(service())
    await cluster.put(node())
    source = cluster.source()
    async with running(source) as published:
        await published.first()
        # The source doesn't see this write, so its revision is older than the restarted server's.
        await cluster.kubectl("create", "configmap", "unrelated")
        await cluster.stop()
        await cluster.start()
        await eventually("the watch to begin anew", lambda: source.status().restarts > 0)
        await cluster.put(endpoint_slice("10.244.1.9"))
        await published.until(lambda s: endpoints(s) == ["10.244.1.9"])
        assert len(published.snapshots) == 2
        assert source.status().problems == ()
    await cluster.kubectl("delete", "configmap", "unrelated")


async def test_an_unknown_token_is_reported_with_its_file(
    cluster: RealCluster, control_plane: ControlPlane, tmp_path: Path
) -> None:
    kubeconfig = tmp_path / "kubeconfig"
    control_plane.write_kubeconfig(kubeconfig, "nobody")
    source = cluster.source(kubeconfig=str(kubeconfig))
    async with running(source) as published:
        await eventually("the problem", lambda: source.status().problems != ())
        assert source.status().problems == (
            (
                f"the API server at {control_plane.server} rejected the credentials: Unauthorized "
                f"(check the credentials in {kubeconfig})"
            ),
        )
        # After the server has rejected the token, a corrected kubeconfig is read immediately.
        control_plane.write_kubeconfig(kubeconfig, token_of(ADMIN))
        await published.first()


async def eventually(what: str, holds: Callable[[], bool]) -> None:
    """Poll a condition, which sends no notification, while the event loop runs."""
    await asyncio.to_thread(wait_for, what, holds)
