"""The kernel features that tests require, with their names in the product.

    @pytest.mark.needs("legacy tables")     on a test, a module or a parameter
    need("legacy tables")                   in a fixture

On a kernel that lacks a feature, these tests are skipped, and listed at the end of the run. In CI
(CI=true, see conftest.py) they fail, because the reference kernel has all features.
"""

from __future__ import annotations

import functools
import socket
from collections.abc import Collection

import pytest

from userspace_proxy.kernel.offers import FOR_IPTABLES, FOR_NFTABLES, NEEDS, read_kernel_offers

LEFT_OUT = "this kernel lacks "

KERNEL_ONCE = (4, pytest.param(6, marks=pytest.mark.kernel))
"""Families for a slow test, of which only one is run on an emulated kernel."""


def _has_ipv6() -> bool:
    try:
        socket.socket(socket.AF_INET6).close()
    except OSError:
        return False
    return True


HAS_IPV6 = _has_ipv6()
BY_STEERING = {
    "iptables": (*FOR_IPTABLES, *(["legacy tables of IPv6"] if HAS_IPV6 else [])),
    "nftables": FOR_NFTABLES,
}
"""The features that steering modes require on test nodes, which are dual-stack."""


def need(part: str) -> None:
    """Skip the test if the kernel lacks a feature; an unknown feature is a ValueError."""
    if part not in NEEDS:
        raise ValueError(f"{part!r} is no part of the kernel that is tried out")
    if part in _lacks():
        pytest.skip(f"{LEFT_OUT}{part}")


def parts_needed(item: pytest.Item) -> set[str]:
    """Return the features that a test requires by its marks and by its steering mode."""
    parts = {part for mark in item.iter_markers("needs") for part in mark.args}
    if item.get_closest_marker("netns") and (callspec := getattr(item, "callspec", None)):
        steerings = BY_STEERING.keys() & {v for v in callspec.params.values() if isinstance(v, str)}
        parts.update(part for steering in steerings for part in BY_STEERING[steering])
    return parts.union(BY_STEERING["iptables"]) if "legacy tables" in parts else parts


def table(reports: Collection[pytest.TestReport]) -> list[str]:
    """Return a line for each skipped test, which names the missing feature."""
    reasons = (
        (report.longrepr[2].partition(LEFT_OUT)[2], report.nodeid)
        for report in reports
        if isinstance(report.longrepr, tuple)
    )
    rows = sorted(row for row in reasons if row[0])
    width = max((len(part) for part, _ in rows), default=0)
    return [f"{part:<{width}}  {test}" for part, test in rows]


@functools.cache
def _lacks() -> frozenset[str]:
    return frozenset(read_kernel_offers().lacks)
