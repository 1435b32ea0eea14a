"""Fixtures: a whole cluster for the tests of one module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ..build import Binaries
from .cluster import Cluster
from .families import FAMILIES
from .images import ensure_images
from .programs import Programs
from .proxies import PROXIES


@pytest.fixture(scope="module", params=["dual", "ipv6"])
def real_cluster(
    request: pytest.FixtureRequest, cluster_binaries: Binaries, node_programs: Programs
) -> Iterator[Cluster]:
    """Two nodes whose Services are ours by nftables, with each set of families that has IPv6."""
    with Cluster(
        cluster_binaries,
        node_programs,
        ensure_images(node_programs),
        PROXIES["nftables"],
        nodes=2,
        families=FAMILIES[request.param],
    ) as cluster:
        yield cluster
