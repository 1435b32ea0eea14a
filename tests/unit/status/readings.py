"""Parses metrics with prometheus_client."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client.parser import text_string_to_metric_families as parse

from userspace_proxy.status.exposition import Family, write_families


def read_samples(
    families: Iterable[Family],
) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Return the value of each sample, by its name and sorted labels."""
    text = write_families(families, open_metrics=False).decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in parse(text)
        for sample in family.samples
    }
