"""Makes workers exit when out of memory, and makes the kernel kill them before their parent.

A callback that fails half-way leaves a connection or an event unhandled: the process would spin,
and log a traceback each time. A replacement serves a tenth of a second after the exit.

Rule 1: the exit needs no memory: no log line, no cleanup. The control process logs the exit
status, and the kernel resets the connections.
Rule 2: every callback of the process is covered: the event loop passes exceptions in callbacks to
its exception handler, and Python passes exceptions that can't be raised to its unraisable hook.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import sys
from pathlib import Path
from typing import Any

from ..kernel.memory_limits import CgroupMemory, find_memory_limits

OUT_OF_MEMORY = errno.ENOMEM
"""The exit status after running out of memory."""

# The increase of oom_score_adj, in thousandths of the memory limit: the kernel kills a worker even
# if the control process uses this much more memory.
_SCORE = 300
_MOST_SCORE = 1000


def exit_on_memory_error(loop: asyncio.AbstractEventLoop) -> None:
    """Exit when a callback of the loop raises MemoryError; log other exceptions."""
    loop.set_exception_handler(_on_exception)
    sys.unraisablehook = _on_unraisable


def be_killed_first(proc: Path = Path("/proc/self")) -> None:
    """Make the kernel kill this process instead of its parent at a cgroup's memory limit.

    Does nothing without such a limit: if the whole node is out of memory, another program is the
    cause. Call it before dropping privileges: only root may write root's files in /proc.

    Source: proc_pid_oom_score_adj(5); raising the score takes no capability.
    """
    if not any(isinstance(limit, CgroupMemory) for limit in find_memory_limits(proc)):
        return
    file = proc / "oom_score_adj"
    # If the score can't be written, the kernel chooses by size alone.
    with contextlib.suppress(OSError, ValueError):
        file.write_text(str(min(int(file.read_text()) + _SCORE, _MOST_SCORE)))


def _on_exception(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    if isinstance(context.get("exception"), MemoryError):
        os._exit(OUT_OF_MEMORY)
    loop.default_exception_handler(context)


def _on_unraisable(unraisable: sys.UnraisableHookArgs) -> None:
    if issubclass(unraisable.exc_type, MemoryError):
        os._exit(OUT_OF_MEMORY)
    sys.__unraisablehook__(unraisable)
