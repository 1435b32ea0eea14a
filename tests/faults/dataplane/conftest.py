"""Provides the unit tests' rigs to fault tests, on both event loops."""

from tests.unit.dataplane.conftest import build, pytest_asyncio_loop_factories, rig, timers

__all__ = ["build", "pytest_asyncio_loop_factories", "rig", "timers"]
