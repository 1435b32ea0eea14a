"""Fixtures: a whole cluster for the tests of one module."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from ..build import Binaries
from .cluster import Cluster
from .images import ensure_images
from .programs import ensure_programs
from .proxies import PROXIES


@pytest.fixture(scope="module")
def real_cluster(cluster_binaries: Binaries, pytestconfig: pytest.Config) -> Iterator[Cluster]:
    """Two nodes whose Services are ours by nftables."""
    if os.geteuid() != 0:
        pytest.skip("containers of a real kubelet need root")
    capture = pytestconfig.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        programs = ensure_programs()
        images = ensure_images(programs)
    with Cluster(cluster_binaries, programs, images, PROXIES["nftables"], nodes=2) as cluster:
        yield cluster
