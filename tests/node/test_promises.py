"""What a Service promises, read from manifests, under rules."""

from __future__ import annotations

import pytest

from tests.node.testbed import Testbed
from tests.promises.suite import *  # noqa: F403 - pytest collects the classes
from tests.promises.world import FLAGS, ManifestWorld

pytestmark = pytest.mark.netns


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A node whose agent reads a file."""
    with Testbed(tmp_path_factory.mktemp("agent"), "iptables", *FLAGS) as testbed:
        yield ManifestWorld(testbed)
