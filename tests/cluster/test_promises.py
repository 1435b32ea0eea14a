"""What a Service promises, read from a real API server."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from tests.node.testbed import Testbed
from tests.promises.suite import *  # noqa: F403 - pytest collects the classes
from tests.promises.world import FLAGS, World

from .api_world import ApiWorld
from .build import Binaries
from .control_plane import ControlPlane

pytestmark = [pytest.mark.cluster, pytest.mark.netns, pytest.mark.long]

SERVICE_CIDR = "10.96.0.0/16,fd00:10:96::/112"


@pytest.fixture(scope="module")
def world(cluster_binaries: Binaries, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A node with an API server, whose agent is the least of users."""
    with contextlib.ExitStack() as stack:
        testbed = Testbed(tmp_path_factory.mktemp("agent"), "iptables", *FLAGS)
        stack.callback(testbed.close)
        control_plane = ControlPlane(
            cluster_binaries,
            prefix=testbed.node.prefix,
            bind_address=str(testbed.node.ip),
            service_cidr=SERVICE_CIDR,
        )
        stack.enter_context(control_plane)
        control_plane.grant_node_proxier()
        world = ApiWorld(testbed, control_plane)
        stack.callback(world.close)
        yield world
