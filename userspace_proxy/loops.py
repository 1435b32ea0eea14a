"""The event loop of processes that start one, and the end of its servers.

The loop is uvloop's where it is installed, else asyncio's: it has wheels for some kinds of machines
only (pyproject.toml names them), and a node has no compiler.

A connection takes two turns of the loop from ``accept()`` to its protocol. asyncio leaves it open
for ever if its server closes in between, and what closes a server's connections doesn't know it.

Source: https://github.com/python/cpython/issues/109564 (repaired in Python 3.13).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

LoopFactory = Callable[[], asyncio.AbstractEventLoop]
_TURNS = 2


def loop_factory() -> LoopFactory:
    """Return what makes a loop, for ``asyncio.Runner``."""
    try:
        import uvloop
    except ModuleNotFoundError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop


async def accepted_have_protocols() -> None:
    """Wait for what was accepted; call it when nothing is accepted any more."""
    for _ in range(_TURNS):
        await asyncio.sleep(0)  # noqa: TID251 - yields once


async def close_server(server: asyncio.Server) -> None:
    """Close its listeners; connections continue, and all of them have their protocols."""
    loop = asyncio.get_running_loop()
    for listener in server.sockets:
        loop.remove_reader(listener)
    await accepted_have_protocols()
    server.close()
