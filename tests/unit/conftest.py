"""Loops of both kinds, a namespace, and which test module runs which lines (``make coverage``)."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator

import pytest
import uvloop

from tests.netns import Net


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    if "coverage" not in sys.modules:
        return
    from coverage import Coverage

    measured = Coverage.current()
    if measured is not None:
        measured.switch_context(item.path.relative_to(item.config.rootpath).as_posix())


@pytest.fixture
def node() -> Iterator[Net]:
    """A network namespace in which the test's thread stands."""
    net = Net("node")
    with net:
        yield net
    net.close()


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request):
    """Run a coroutine in a loop of each kind."""

    def run(main):
        with asyncio.Runner(loop_factory=request.param) as runner:
            return runner.run(asyncio.wait_for(main, 60))

    return run
