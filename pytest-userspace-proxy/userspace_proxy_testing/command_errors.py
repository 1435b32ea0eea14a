"""What a command writes to stderr: passed on, and its last lines kept for an exception."""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
from typing import IO

_STDERR = 2
_READ_BYTES = 65536
_LINES = 20
_LAST_S = 1.0
"""How long the text waits for the pipe's end: a process that outlives the command may keep it."""


class CommandErrors:
    """The stderr of one command that runs; it is read until its end.

    Args:
        pipe: What the command writes; it is closed at its end.
    """

    def __init__(self, pipe: IO[bytes]) -> None:
        self._pipe = pipe
        self._kept: deque[bytes] = deque(maxlen=_LINES)
        self._thread = threading.Thread(target=self._pass_on, name="stderr", daemon=True)
        self._thread.start()

    def text(self) -> str:
        """Return the last lines of a command that has ended; empty if it wrote none."""
        self._thread.join(_LAST_S)
        return b"\n".join(self._kept).decode(errors="replace")

    def _pass_on(self) -> None:
        with self._pipe as pipe:
            line = b""
            while data := os.read(pipe.fileno(), _READ_BYTES):
                # A test's runner may have closed its own.
                with contextlib.suppress(OSError):
                    os.write(_STDERR, data)
                *lines, line = (line + data).split(b"\n")
                self._kept.extend(lines)
                line = line[-_READ_BYTES:]
            if line:
                self._kept.append(line)
