"""Creates event loops, and closes their servers.

uvloop is used where it is installed, otherwise asyncio: uvloop has wheels for only some platforms
(see pyproject.toml), and a node has no compiler.

A connection takes two iterations of the loop from ``accept()`` to its protocol. If the server
closes in between, asyncio leaves the connection open forever, unknown to the server's owner.

Source: https://github.com/python/cpython/issues/109564 (fixed in Python 3.13).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

LoopFactory = Callable[[], asyncio.AbstractEventLoop]
_TURNS = 2


def loop_factory() -> LoopFactory:
    """Return the loop factory for ``asyncio.Runner``."""
    try:
        import uvloop
    except ModuleNotFoundError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop


async def accepted_have_protocols() -> None:
    """Wait until accepted connections have protocols; call this once no more are accepted."""
    for _ in range(_TURNS):
        await asyncio.sleep(0)  # noqa: TID251 - yields once


async def close_server(server: asyncio.Server) -> None:
    """Close a server's listeners; its connections continue, and all have protocols by then."""
    loop = asyncio.get_running_loop()
    for listener in server.sockets:
        loop.remove_reader(listener)
    await accepted_have_protocols()
    server.close()
