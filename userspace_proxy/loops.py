"""The event loop of processes that start one: uvloop's where it is installed, else asyncio's.

uvloop has wheels for some kinds of machines only (pyproject.toml names them), and a node has no
compiler.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

LoopFactory = Callable[[], asyncio.AbstractEventLoop]


def loop_factory() -> LoopFactory:
    """Return what makes a loop, for ``asyncio.Runner``."""
    try:
        import uvloop
    except ModuleNotFoundError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop
