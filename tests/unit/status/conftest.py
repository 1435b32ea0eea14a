"""Every asynchronous test of the status servers runs on both event loops.

The agent uses uvloop, whose transports don't inherit from asyncio's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
import uvloop


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> dict[str, Callable]:
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
