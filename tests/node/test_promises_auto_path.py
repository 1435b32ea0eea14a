"""What a Service promises, read from manifests, on the path that probes choose."""

import pytest

from tests.promises.suite import *  # noqa: F403 - pytest collects the classes
from tests.promises.world import ASKS_WHERE_DRAWN, manifest_world

pytestmark = [pytest.mark.netns, pytest.mark.long, pytest.mark.needs("fib", "masquerade", "numgen")]

world = manifest_world("nftables", "--path=auto", asks=ASKS_WHERE_DRAWN)
