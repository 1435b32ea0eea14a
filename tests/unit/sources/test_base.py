"""The contract that all sources share, and that of Leases with those that tests use."""

from __future__ import annotations

import pytest

from userspace_proxy.model import Workload, WorkloadKind
from userspace_proxy.sources import ManifestSource, MemorySource, SourceStatus
from userspace_proxy.sources.base import Rest

from .leases_contract import NODES, LeasesContract, LeasesOf
from .shared_leases import LeaseStore


def test_nothing_is_synced_before_it_runs(tmp_path):
    for source in (MemorySource(), ManifestSource(tmp_path)):
        assert source.status() == SourceStatus(is_synced=False, problems=(), restarts=0)


def test_each_source_names_its_kind_and_its_place(tmp_path):
    sources = [MemorySource(), ManifestSource(tmp_path)]
    assert [(s.kind, s.location) for s in sources] == [
        ("memory", "this program"),
        ("manifests", str(tmp_path)),
    ]


async def test_without_a_cluster_nothing_is_scaled_and_nothing_is_shared():
    web = Workload(WorkloadKind.DEPLOYMENT, "web")

    async def agree():
        return True

    source = MemorySource()
    assert source.leases("node-1", "") is None
    why = "deployment/web can't be scaled: Services are read from memory"
    assert await source.rest("shop", web, lambda _: None, agree) == Rest(why_not=why)


@pytest.fixture
async def leases_of() -> LeasesOf:
    return LeaseStore(*NODES).at


class TestContract(LeasesContract):
    pass
