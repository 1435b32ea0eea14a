"""What a Service promises, read from manifests, on the path that probes choose."""

from __future__ import annotations

import pytest

from tests.node.testbed import Testbed
from tests.promises.suite import *  # noqa: F403 - pytest collects the classes
from tests.promises.world import FLAGS, ManifestWorld

pytestmark = pytest.mark.netns


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A node whose agent reads a file."""
    flags = (*FLAGS, "--path=auto")
    with Testbed(tmp_path_factory.mktemp("agent"), "nftables", *flags) as testbed:
        world = ManifestWorld(testbed)
        # The kernel may draw an endpoint for each: one of three is left out once in a million.
        world.asks = 40
        yield world
