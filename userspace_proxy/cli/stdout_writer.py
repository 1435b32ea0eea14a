"""Writes to stdout from a thread, so that a stalled reader never stops the program.

The thread is a daemon that holds no lock, so it can't delay the exit, as that of the log.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from functools import partial

_STDOUT = 1


async def write_stdout(text: str, descriptor: int = _STDOUT) -> None:
    """Write a text to a descriptor, which the caller closes; return when it is written.

    Raises:
        OSError: Nothing reads it any more.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def finish(error: OSError | None) -> None:
        if done.cancelled():
            return
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)

    def write() -> None:
        error: OSError | None = None
        rest = memoryview(text.encode())
        try:
            while rest:
                rest = rest[os.write(descriptor, rest) :]
        except OSError as exc:
            error = exc
        # The loop is closed if the program has ended meanwhile.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(partial(finish, error))

    threading.Thread(target=write, name="stdout", daemon=True).start()
    await done
