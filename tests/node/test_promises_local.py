"""The guarantees of a Service that depend on the packets' path, with local steering."""

import pytest

from tests.promises.suite import (  # noqa: F401 - pytest collects them
    TestConnections,
    TestOutside,
    TestPolicies,
    TestUdp,
    hang_up,
)
from tests.promises.world import manifest_world

pytestmark = [pytest.mark.netns, pytest.mark.long]

world = manifest_world("local")
