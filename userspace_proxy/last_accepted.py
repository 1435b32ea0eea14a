"""The end of a server of asyncio, without losing what it has just accepted.

A connection takes two turns of the loop from ``accept()`` to its protocol. asyncio leaves it open
for ever if its server closes in between, and what closes a server's connections doesn't know it.

Source: https://github.com/python/cpython/issues/109564 (repaired in Python 3.13).
"""

from __future__ import annotations

import asyncio
import socket
from asyncio.trsock import TransportSocket

_TURNS = 2


async def accept_no_more(*listeners: socket.socket | TransportSocket) -> None:
    """Stop accepting, and return when what was accepted has its protocol.

    Args:
        listeners: They stay open; those that are closed already needn't be given.
    """
    loop = asyncio.get_running_loop()
    for listener in listeners:
        loop.remove_reader(listener)
    for _ in range(_TURNS):
        await asyncio.sleep(0)  # noqa: TID251 - yields once
