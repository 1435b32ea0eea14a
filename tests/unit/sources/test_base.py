"""The contract that all sources share."""

from __future__ import annotations

from userspace_proxy.sources import ManifestSource, MemorySource, SourceStatus


def test_nothing_is_synced_before_it_runs(tmp_path):
    for source in (MemorySource(), ManifestSource(tmp_path)):
        assert source.status() == SourceStatus(is_synced=False, problems=(), restarts=0)


def test_each_source_names_its_kind_and_its_place(tmp_path):
    sources = [MemorySource(), ManifestSource(tmp_path)]
    assert [(s.kind, s.location) for s in sources] == [
        ("memory", "this program"),
        ("manifests", str(tmp_path)),
    ]
