"""A pool of the pipes through which bulk data is spliced.

Rule 1: a direction takes a pipe when it has bulk to move, and returns it empty when its source is
drained. So a few pipes serve any number of connections, and an idle connection holds none (a proxy
with two pipes per connection needs six descriptors per connection).
Rule 2: without a free pipe, bytes are copied; nothing waits for a pipe.
Rule 3: a pipe with bytes in it is closed, never reused.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass

from .calls import SystemCalls
from .descriptors import Descriptors

PIPE_BYTES = 1024 * 1024

# An unprivileged user may use 64 MiB for all pipes (fs.pipe-user-pages-soft); beyond it
# F_SETPIPE_SZ fails. This is half of it, leaving the rest to other processes of the same user.
MAX_PIPES = 32

# A small pipe is slower than copying. So if the kernel denies a large one, bytes are copied, and a
# pipe is tried again later: other processes may have closed theirs.
RETRY_S = 10.0

_REFUSED = frozenset({-errno.EPERM, -errno.EMFILE, -errno.ENFILE, -errno.ENOMEM})


@dataclass(frozen=True, slots=True)
class Pipe:
    """The two descriptors of a pipe."""

    read_end: int
    write_end: int


class PipePool:
    """The pipes of one data plane, two descriptors each; with ``max_pipes`` 0 all is copied."""

    def __init__(self, calls: SystemCalls, descriptors: Descriptors, max_pipes: int) -> None:
        self._calls = calls
        self._descriptors = descriptors
        self._max_pipes = max_pipes
        self._free: list[Pipe] = []
        self._retry_at = 0.0
        self.open_pipes = 0
        """How many pipes exist, in use or free."""

    def take(self, now: float) -> Pipe | None:
        """Return an empty pipe, or None if there is none; ``now`` is in monotonic seconds."""
        if self._free:
            return self._free.pop()
        if (
            self.open_pipes >= self._max_pipes
            or now < self._retry_at
            or not self._descriptors.has_room(2)
        ):
            return None
        pipe = self._open()
        if pipe is None:
            self._retry_at = now + RETRY_S
        return pipe

    def give(self, pipe: Pipe, left_bytes: int) -> None:
        """Return a pipe to the pool; closes it if bytes are left in it."""
        if left_bytes:
            self._close(pipe)
        else:
            self._free.append(pipe)

    def close(self) -> None:
        """Close the free pipes, and open no more."""
        self._max_pipes = 0
        while self._free:
            self._close(self._free.pop())

    def _open(self) -> Pipe | None:
        read_end, write_end = self._calls.open_pipe(PIPE_BYTES)
        if read_end < 0:
            if read_end not in _REFUSED:
                raise OSError(-read_end, os.strerror(-read_end))
            return None
        self.open_pipes += 1
        self._descriptors.take(2)
        return Pipe(read_end, write_end)

    def _close(self, pipe: Pipe) -> None:
        self._calls.close(pipe.read_end)
        self._calls.close(pipe.write_end)
        self.open_pipes -= 1
        self._descriptors.give(2)
