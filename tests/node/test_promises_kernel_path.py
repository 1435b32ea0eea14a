"""What a Service promises, read from manifests, on the kernel path."""

from __future__ import annotations

import pytest

from tests.node.testbed import Testbed
from tests.promises.suite import *  # noqa: F403 - pytest collects the classes
from tests.promises.world import FLAGS, ManifestWorld

pytestmark = pytest.mark.netns


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A node whose agent reads a file."""
    flags = (*FLAGS, "--path=kernel")
    with Testbed(tmp_path_factory.mktemp("agent"), "nftables", *flags) as testbed:
        world = ManifestWorld(testbed)
        # The kernel draws an endpoint for each: one of three is left out once in a million times.
        world.asks = 40
        yield world
