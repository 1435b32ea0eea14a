from __future__ import annotations

import pytest

from userspace_proxy.testing.service_network import ServiceNetwork


@pytest.fixture(scope="module")
def network():
    """A network that the tests of a module share."""
    with ServiceNetwork() as network:
        yield network
