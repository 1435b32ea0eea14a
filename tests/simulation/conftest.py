"""Fixtures of the simulation's tests, with which contract tests run against both kernels."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .systems import RealSystem, SimulatedSystem, System


@pytest.fixture(params=[SimulatedSystem, RealSystem], ids=["simulated", "real"])
def system(request: pytest.FixtureRequest) -> Iterator[System]:
    """Run the test with the simulated and with the real kernel."""
    system: System = request.param()
    yield system
    system.close()
