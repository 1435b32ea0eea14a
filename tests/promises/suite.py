"""All classes of the suite, for test modules with a fixture ``world``."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .affinity import TestAffinity
from .connections import TestConnections
from .endpoints import TestEndpoints
from .families import TestFamilies
from .labels import TestLabels
from .outside import TestOutside
from .policies import TestPolicies
from .types import TestNodes, TestTypes
from .udp import TestUdp
from .world import World

__all__ = [
    "TestAffinity",
    "TestConnections",
    "TestEndpoints",
    "TestFamilies",
    "TestLabels",
    "TestNodes",
    "TestOutside",
    "TestPolicies",
    "TestTypes",
    "TestUdp",
    "hang_up",
]


@pytest.fixture(autouse=True)
def hang_up(world: World) -> Iterator[None]:
    """Close a test's connections when it ends."""
    yield
    world.hang_up()
