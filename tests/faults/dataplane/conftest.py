"""The same houses on both event loops as in the unit tests, for what is broken on purpose."""

from tests.unit.dataplane.conftest import build, house, pytest_asyncio_loop_factories, timers

__all__ = ["build", "house", "pytest_asyncio_loop_factories", "timers"]
