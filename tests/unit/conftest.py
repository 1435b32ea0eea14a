"""Loops of both kinds; ``make coverage`` records which test module runs which lines."""

from __future__ import annotations

import asyncio
import sys

import pytest
import uvloop


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    if "coverage" not in sys.modules:
        return
    from coverage import Coverage

    measured = Coverage.current()
    if measured is not None:
        measured.switch_context(item.path.relative_to(item.config.rootpath).as_posix())


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request):
    """Run a coroutine in a loop of each kind."""

    def run(main):
        with asyncio.Runner(loop_factory=request.param) as runner:
            return runner.run(asyncio.wait_for(main, 60))

    return run
