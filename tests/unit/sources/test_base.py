"""The contract that all sources share, and the contract of the tests' Leases."""

from __future__ import annotations

import pytest
from hypothesis import Phase, given, settings

from userspace_proxy.model import Workload, WorkloadKind
from userspace_proxy.sources import ManifestSource, MemorySource, SourceStatus
from userspace_proxy.sources.base import ScaleDown

from .drawn import OBJECTS, is_selecting
from .kubernetes.conftest import always
from .leases_contract import NODES, LeasesContract, LeasesOf
from .same_objects import of_api_server, of_manifests, of_one_service, seen
from .shared_leases import LeaseStore

__all__ = ["always"]


def test_a_source_that_has_not_run_is_not_synced(tmp_path):
    for source in (MemorySource(), ManifestSource(tmp_path)):
        assert source.status() == SourceStatus(is_synced=False, problems=(), restarts=0)


def test_sources_of_memory_and_manifests_report_their_kind_and_location(tmp_path):
    sources = [MemorySource(), ManifestSource(tmp_path)]
    assert [(s.kind, s.location) for s in sources] == [
        ("memory", "this program"),
        ("manifests", str(tmp_path)),
    ]


async def test_a_memory_source_scales_no_workload_and_has_no_leases():
    web = Workload(WorkloadKind.DEPLOYMENT, "web")

    async def agree():
        return True

    source = MemorySource()
    assert source.leases("node-1", "") is None
    why = "deployment/web can't be scaled: Services are read from memory"
    assert await source.scale_down("shop", web, lambda _: None, agree) == ScaleDown(reason=why)


# Failing examples aren't shrunk, because each one starts several servers.
@settings(phases=[Phase.generate])
@given(OBJECTS)
def test_equal_objects_result_in_equal_plans_causes_and_texts_from_each_source(objects):
    from_files = of_manifests(objects)
    services = [*from_files.snapshot.services]
    expected = {key: seen(from_files, key) for key in services}
    from_server = of_api_server(objects)
    assert from_server.rejected == from_files.rejected == []
    assert {key: seen(from_server, key) for key in services} == expected
    assert from_server.facts == from_files.facts
    # With the slices that DNS needs, even the snapshots are equal.
    for_dns = of_api_server(objects, with_headless=True)
    assert for_dns.snapshot == from_files.snapshot
    for key in services:
        # This source doesn't read other namespaces, whose Services may have the same addresses.
        near = [
            item for item in objects if item["metadata"].get("namespace") in (None, key.namespace)
        ]
        assert seen(of_one_service(near, key), key) == seen(of_manifests(near), key)
    if not any(map(is_selecting, objects)):
        from_pods = of_api_server(objects, endpoints_from_pods=True)
        assert {key: seen(from_pods, key) for key in services} == expected


@pytest.fixture
async def leases_of() -> LeasesOf:
    return LeaseStore(*NODES).at


class TestContract(LeasesContract):
    pass
