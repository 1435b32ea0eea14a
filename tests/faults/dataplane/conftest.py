"""Runs the unit tests' rigs on both event loops, for fault tests."""

from tests.unit.dataplane.conftest import build, pytest_asyncio_loop_factories, rig, timers

__all__ = ["build", "pytest_asyncio_loop_factories", "rig", "timers"]
