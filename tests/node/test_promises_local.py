"""What a Service promises under local routes: what depends on how packets get here."""

from __future__ import annotations

import pytest

from tests.node.testbed import Testbed
from tests.promises.suite import (  # noqa: F401 - pytest collects them
    TestConnections,
    TestOutside,
    TestPolicies,
    TestUdp,
    hang_up,
)
from tests.promises.world import FLAGS, ManifestWorld

pytestmark = pytest.mark.netns


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A node whose agent reads a file."""
    with Testbed(tmp_path_factory.mktemp("agent"), "local", *FLAGS) as testbed:
        yield ManifestWorld(testbed)
