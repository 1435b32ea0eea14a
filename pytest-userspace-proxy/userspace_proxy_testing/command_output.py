"""Passes on the output of a command, searches it for a string, and keeps its last lines."""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
from typing import IO

_READ_BYTES = 65536
_LINES = 20
_LAST_S = 1.0
"""The seconds that ``text`` waits for EOF; a child that outlives the command delays it."""


class CommandOutput:
    """The standard output or error of a running command, read in a thread until EOF.

    Args:
        pipe: The read end of a pipe, which is closed at EOF.
        descriptor: The descriptor to which the output is passed on: 1 or 2.
        awaited: A string that a line is expected to contain.
    """

    def __init__(self, pipe: IO[bytes], descriptor: int, awaited: str = "") -> None:
        self.has_come = threading.Event()
        """Set once a line contains ``awaited``."""
        self._pipe = pipe
        self._descriptor = descriptor
        self._awaited = awaited.encode()
        self._kept: deque[bytes] = deque(maxlen=_LINES)
        self._thread = threading.Thread(target=self._pass_on, name="output", daemon=True)
        self._thread.start()

    def text(self) -> str:
        """Wait up to _LAST_S for the end of the output; return its last lines, if any."""
        self._thread.join(_LAST_S)
        return b"\n".join(self._kept).decode(errors="replace")

    def _pass_on(self) -> None:
        with self._pipe as pipe:
            line = b""
            while data := os.read(pipe.fileno(), _READ_BYTES):
                # The test runner may have closed its own descriptor; keep reading anyway.
                with contextlib.suppress(OSError):
                    os.write(self._descriptor, data)
                *lines, line = (line + data).split(b"\n")
                if self._awaited and any(self._awaited in one for one in (*lines, line)):
                    self.has_come.set()
                self._kept.extend(lines)
                line = line[-_READ_BYTES:]
            if line:
                self._kept.append(line)
