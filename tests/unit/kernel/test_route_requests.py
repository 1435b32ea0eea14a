"""The socket to routes and links: it lists them, and a shortage is an error in words."""

from __future__ import annotations

import os
import resource

import pytest

from userspace_proxy.errors import SteeringError
from userspace_proxy.kernel.netlink import rtnetlink
from userspace_proxy.kernel.route_requests import open_route_requests


def test_it_lists_links():
    with open_route_requests() as requests:
        listed = requests.list_all(rtnetlink.list_links())
    assert "lo" in [rtnetlink.read_link(message).name for message in listed]


def test_without_a_descriptor_the_error_is_the_kernels():
    free = os.dup(0)
    os.close(free)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
    try:
        with pytest.raises(
            SteeringError, match="cannot open a netlink socket: Too many open files"
        ):
            open_route_requests()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
