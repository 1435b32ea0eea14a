"""Starts processes, and kills them at the end of a block."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from subprocess import PIPE
from typing import Any


@contextlib.contextmanager
def started(
    command: Sequence[str | Path], *, stdin: Any = PIPE, stdout: Any = PIPE, **options: Any
) -> Iterator[subprocess.Popen[str]]:
    """Start a command with text pipes; at the end of the block, kill its process group.

    Don't wait for an EOF on the pipes, because a process that has left the group can hold the
    other ends.
    """
    options |= {"stdin": stdin, "stdout": stdout, "text": True, "start_new_session": True}
    with subprocess.Popen(command, **options) as process:
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
