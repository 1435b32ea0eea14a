"""A choice of upstream's tests for every change: whole clusters, each with a steering of ours."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.cluster.build import Binaries

from ..nodes.cluster import Cluster
from ..nodes.images import ensure_images
from ..nodes.programs import ensure_programs
from ..nodes.proxies import PROXIES
from .groups import CNI, GROUPS
from .junit import PASSED
from .run import run_tests

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.netns,
    pytest.mark.skipif(os.geteuid() != 0, reason="containers of a real kubelet need root"),
    # A first run builds everything: fifteen minutes on two cores.
    pytest.mark.timeout(2400),
]


@pytest.mark.parametrize("steering", ["nftables", "iptables"])
def test_the_chosen_tests_pass(
    steering: str, cluster_binaries: Binaries, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    group = GROUPS["ci"]
    with capfd.disabled():
        programs = ensure_programs(with_upstream=True)
        images = ensure_images(programs)
    with Cluster(
        cluster_binaries, programs, images, PROXIES[steering], nodes=group.nodes, cni=CNI
    ) as cluster:
        results = run_tests(cluster, programs, group, tmp_path)
    assert [result for result in results if result.outcome != PASSED] == []
    assert len(results) == len(group.tests)
