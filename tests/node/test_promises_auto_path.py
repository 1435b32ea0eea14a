"""The guarantees of a Service, with manifests, on the path that probes select."""

import pytest

from tests.promises.suite import *  # noqa: F403 - pytest collects the classes
from tests.promises.world import ASKS_WHERE_DRAWN, manifest_world
from userspace_proxy.kernel.offers import FOR_KERNEL_PATH

pytestmark = [pytest.mark.netns, pytest.mark.long, pytest.mark.needs(*FOR_KERNEL_PATH)]

world = manifest_world("nftables", "--path=auto", asks=ASKS_WHERE_DRAWN)
