"""Fixtures: a whole cluster for the tests of one module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ..build import Binaries
from .cluster import Cluster
from .images import ensure_images
from .programs import Programs
from .proxies import PROXIES


@pytest.fixture(scope="module")
def real_cluster(cluster_binaries: Binaries, node_programs: Programs) -> Iterator[Cluster]:
    """Two nodes whose Services are ours by nftables."""
    images = ensure_images(node_programs)
    with Cluster(cluster_binaries, node_programs, images, PROXIES["nftables"], nodes=2) as cluster:
        yield cluster
