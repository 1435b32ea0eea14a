"""Writes the log and stdout from threads, so that a stalled reader never stops the program.

    put() ──▶ queue, at most 1 MiB ──▶ thread ──write(2)──▶ stderr: a file, pipe, socket or terminal

Rule 1: ``put`` never waits. If the queue is full, the line is dropped and counted; once there is
room again, another line reports how many were dropped.
Rule 2: stderr isn't made non-blocking, because O_NONBLOCK belongs to the open file, which other
processes share.
Rule 3: poll() before each write can't replace the thread: another writer could fill the pipe in
between, and for files, even on a network, poll() always reports "ready".
Rule 4: the thread is a daemon, and holds no lock while it writes, so it can't delay the exit.
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from ..model.quoting import printable

MAX_QUEUED_BYTES = 1024 * 1024
"""The size of the queue: about 5,000 lines."""

# Linux's PIPE_BUF: a write of at most this size to a pipe isn't interleaved with other processes'
# writes (pipe(7)).
_WRITE_BYTES = 4096
_STDOUT = 1


class _Line(NamedTuple):
    data: bytes
    dropped: int
    """The number of dropped lines that this line reports; 0 for an ordinary line."""


class LogWriter:
    """Writes lines to one descriptor, which the caller closes.

    Args:
        describe_dropped: Returns a line that reports the number of dropped lines.
        max_queued_bytes: The size of the queue.
    """

    def __init__(
        self,
        descriptor: int,
        *,
        describe_dropped: Callable[[int], str],
        max_queued_bytes: int = MAX_QUEUED_BYTES,
    ) -> None:
        self.dropped = 0
        """The number of lines dropped since startup."""
        self._descriptor = descriptor
        self._describe_dropped = describe_dropped
        self._max_queued_bytes = max_queued_bytes
        self._queue: deque[_Line] = deque()
        self._queued_bytes = 0
        self._unreported = 0
        self._is_full = False
        self._is_writing = False
        self._has_failed = False
        self._is_closed = False
        self._changed = threading.Condition()
        threading.Thread(target=self._run, name="log", daemon=True).start()

    def put(self, line: str) -> None:
        """Queue a line, given without its newline; if the queue is full, drop and count it.

        Unprintable characters are escaped, because a terminal may show the log.
        """
        data = f"{printable(line)}\n".encode()
        with self._changed:
            # After an overflow, wait until half of the queue is free; otherwise every second line
            # would report dropped lines.
            limit = self._max_queued_bytes // (2 if self._is_full else 1)
            self._is_full = self._queued_bytes + len(data) > limit
            if self._is_full:
                self.dropped += 1
                self._unreported += 1
                return
            if self._unreported:
                self._append_report()
            self._append(_Line(data, 0))

    def flush(self, within_s: float) -> bool:
        """Wait until everything is written; return False if the reader is too slow."""
        with self._changed:
            return self._changed.wait_for(self._is_idle, timeout=within_s)

    def close(self) -> None:
        """End the thread once everything is written; idempotent."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def _is_idle(self) -> bool:
        return not (self._queue or self._is_writing or self._owes_report())

    def _owes_report(self) -> bool:
        # While writing fails, each report would be dropped, and cause another report.
        return bool(self._unreported) and not self._has_failed

    def _append(self, item: _Line) -> None:
        self._queue.append(item)
        self._queued_bytes += len(item.data)
        if len(self._queue) == 1:
            self._changed.notify_all()

    def _append_report(self) -> None:
        count, self._unreported = self._unreported, 0
        self._append(_Line(f"{self._describe_dropped(count)}\n".encode(), count))

    def _run(self) -> None:
        while items := self._take():
            is_written = self._write(b"".join(item.data for item in items))
            with self._changed:
                self._is_writing = False
                self._has_failed = not is_written
                if not is_written:
                    self.dropped += sum(not item.dropped for item in items)
                    self._unreported += sum(item.dropped or 1 for item in items)
                self._changed.notify_all()

    def _take(self) -> list[_Line]:
        """Return the next lines, as many as fit into one write; empty once closed and drained."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._owes_report() or self._is_closed)
            if not self._queue and self._owes_report():
                self._append_report()
            items: list[_Line] = []
            size = 0
            while self._queue and (not items or size + len(self._queue[0].data) <= _WRITE_BYTES):
                items.append(self._queue.popleft())
                size += len(items[-1].data)
            self._queued_bytes -= size
            self._is_writing = bool(items)
            return items

    def _write(self, data: bytes) -> bool:
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[os.write(self._descriptor, rest) :]
            except BlockingIOError:
                # Wait for room, because another process has set O_NONBLOCK.
                room = select.poll()
                room.register(self._descriptor, select.POLLOUT)
                room.poll()
            except OSError:
                return False
        return True


async def write_stdout(text: str, descriptor: int = _STDOUT) -> None:
    """Write a string to a descriptor, which the caller closes; return once it is written.

    Raises:
        OSError: The string can't be written: for example, the reader has closed the pipe.
    """
    # Import asyncio here, because commands that only write lines don't use it.
    import asyncio

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
        # At the program's exit the loop may already be closed, and nothing waits for the result.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(partial(finish, error))

    threading.Thread(target=write, name="stdout", daemon=True).start()
    await done
