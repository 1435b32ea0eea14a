"""Ends a worker process that runs out of memory, at once.

A callback that failed half-way has left a connection, or an event, unhandled: the process would
spin on it and log a traceback each time. Its successor serves a tenth of a second later.

Rule 1: nothing here needs memory: no log line, no cleanup. The control process logs the exit
status, and the kernel resets the connections.
Rule 2: every callback of the process is covered: the event loop reports exceptions of callbacks to
its exception handler, and Python those that nothing can catch to its unraisable hook.
"""

from __future__ import annotations

import asyncio
import errno
import os
import sys
from typing import Any

OUT_OF_MEMORY = errno.ENOMEM
"""The exit status."""


def exit_on_memory_error(loop: asyncio.AbstractEventLoop) -> None:
    """End this process when a callback of the loop raises MemoryError; log other exceptions."""
    loop.set_exception_handler(_on_exception)
    sys.unraisablehook = _on_unraisable


def _on_exception(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    if isinstance(context.get("exception"), MemoryError):
        os._exit(OUT_OF_MEMORY)
    loop.default_exception_handler(context)


def _on_unraisable(unraisable: sys.UnraisableHookArgs) -> None:
    if issubclass(unraisable.exc_type, MemoryError):
        os._exit(OUT_OF_MEMORY)
    sys.__unraisablehook__(unraisable)
