"""Runs a selection of upstream's tests in whole clusters, each with its steering mode."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cluster.build import Binaries

from ..nodes.cluster import Cluster
from ..nodes.families import FAMILIES
from ..nodes.images import ensure_images
from ..nodes.programs import Programs
from ..nodes.proxies import PROXIES
from .groups import GROUPS, PASSED
from .run import run_tests

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.netns,
    pytest.mark.timeout(900),
]


@pytest.mark.parametrize(
    ("steering", "cni", "families"),
    [
        pytest.param("nftables", "bridge", "dual", id="nftables-bridge-dual"),
        pytest.param("iptables", "ptp", "ipv6", id="iptables-ptp-ipv6"),
    ],
)
def test_the_selected_upstream_tests_pass(
    steering: str,
    cni: str,
    families: str,
    cluster_binaries: Binaries,
    node_programs: Programs,
    tmp_path: Path,
) -> None:
    group = GROUPS["ci"]
    images = ensure_images(node_programs)
    with Cluster(
        cluster_binaries,
        node_programs,
        images,
        PROXIES[steering],
        nodes=group.nodes,
        cni=cni,
        families=FAMILIES[families],
    ) as cluster:
        results = run_tests(cluster, node_programs, group, tmp_path)
    assert [result for result in results if result.outcome != PASSED] == []
    assert len(results) == len(group.tests)
