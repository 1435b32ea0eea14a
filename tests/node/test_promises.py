"""The guarantees of a Service, with manifests and rules."""

import pytest

from tests.promises.suite import *  # noqa: F403 - pytest collects the classes
from tests.promises.world import manifest_world

pytestmark = pytest.mark.netns

world = manifest_world("iptables")
