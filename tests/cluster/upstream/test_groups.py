"""Which of upstream's tests a group has."""

from __future__ import annotations

import re

import pytest

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
def test_one_whose_name_only_begins_alike_is_in_none(name: str) -> None:
    assert not [group for group in GROUPS.values() if re.search(group.focus, name)]
