"""Which of upstream's tests a group has."""

from __future__ import annotations

import re

import pytest

from ..nodes.families import FAMILIES
from .groups import GROUPS


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("[sig-network] Services should serve multiport endpoints from pods", "services"),
        ("[sig-network] Networking Granular Checks: Services should update", "networking"),
        ("[sig-network] HostPort validates that there is no conflict", "networking"),
        ("[sig-network] [Feature:IPv6DualStack] should create a pod", "dual-stack"),
    ],
)
def test_a_test_is_in_its_group(name: str, group: str) -> None:
    assert re.search(GROUPS[group].focus, name)


@pytest.mark.parametrize(
    "name",
    [
        "[sig-network] ServiceCIDR and IPAddress API should support ServiceCIDR API operations",
        "[sig-network] EndpointSliceMirroring should mirror a custom Endpoint",
        "[sig-node] Pods with Services should start",
    ],
)
def test_a_test_whose_name_only_begins_alike_is_in_no_group(name: str) -> None:
    assert not [group for group in GROUPS.values() if re.search(group.focus, name)]


def test_the_tests_for_dual_stack_run_on_dual_stack_clusters_and_without_sctp() -> None:
    group = GROUPS["dual-stack"]
    name = "[sig-network] [Feature:IPv6DualStack] should function: sctp [Feature:SCTPConnectivity]"
    assert group.families == ("dual",)
    assert any(word in name for word in group.skip)


def test_every_group_runs_with_families_that_a_cluster_can_have() -> None:
    assert all(group.families and FAMILIES.keys() >= {*group.families} for group in GROUPS.values())
