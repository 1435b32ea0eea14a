"""The rigs of the unit tests, on both event loops, for what is broken on purpose."""

from tests.unit.dataplane.conftest import build, pytest_asyncio_loop_factories, rig, timers

__all__ = ["build", "pytest_asyncio_loop_factories", "rig", "timers"]
