"""Starts one worker process, and notices its end."""

from __future__ import annotations

import asyncio
import logging
import os
import select
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence

from .channel import Channel
from .messages import FromWorker, ToWorker
from .out_of_memory import OUT_OF_MEMORY

_log = logging.getLogger("userspace_proxy.dataplane")

# Isolated, and with this process's path: ``-m`` would search the current folder first, and a worker
# starts with this process's privileges.
PROGRAM = (
    sys.executable,
    "-I",
    "-c",
    """import sys
sys.path[:] = sys.argv[1:-1]
from userspace_proxy.plane.worker_main import run_worker
sys.exit(run_worker(int(sys.argv[-1])))""",
)


class WorkerProcess:
    """A child that runs :mod:`.worker_main`, and the channel to it. Part of Link.

    ``ended`` is called once when the process has ended, with ``exit status 1``, ``signal 9`` or
    ``exit status 12 (out of memory)``. The program gets this process's module path and the
    channel's descriptor as arguments. Raises OSError if it can't be started.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        receive: Callable[[FromWorker], None],
        ended: Callable[[str], None],
        program: Sequence[str] = PROGRAM,
    ) -> None:
        self._loop = loop
        self._receive = receive
        self._ended = ended
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with theirs:
                # Not stdout: what a worker prints belongs in the log.
                self._process = subprocess.Popen(
                    [*program, *sys.path, str(theirs.fileno())],
                    stdin=subprocess.DEVNULL,
                    stdout=2,
                    pass_fds=(theirs.fileno(),),
                )
            self._pidfd = os.pidfd_open(self._process.pid)
        except BaseException:
            ours.close()
            raise
        self.pid = self._process.pid
        self._channel = Channel[FromWorker, ToWorker](
            loop, ours, reads=FromWorker, receive=self._on_message, lost=self._on_lost
        )
        loop.add_reader(self._pidfd, self._on_end)

    def send(self, message: ToWorker, *socks: socket.socket) -> None:
        """Part of Link."""
        self._channel.send(message, *socks)

    def kill(self) -> None:
        """Part of Link; ``ended`` is called later."""
        self._process.kill()

    def hang_up(self) -> None:
        """Part of Link; a process that is killed ends its connections without a reset."""
        self._channel.close()

    def close(self, within_s: float) -> None:
        """Part of Link."""
        if self._pidfd >= 0:
            self.hang_up()
            end = select.poll()
            end.register(self._pidfd, select.POLLIN)
            end.poll(max(0.0, within_s) * 1000)
            self._forget()
            self._process.kill()
            self._process.wait()

    def _on_message(self, message: FromWorker, descriptors: list[int]) -> None:
        # Workers send none.
        for descriptor in descriptors:
            os.close(descriptor)
        self._receive(message)

    def _on_lost(self, malformed: str) -> None:
        if malformed:
            _log.error(
                "worker sent a malformed message, killing it",
                extra={"pid": self.pid, "cause": malformed},
            )
        self.kill()

    def _on_end(self) -> None:
        status = self._process.wait()
        # Its last messages may not have been read.
        self._channel.read()
        self._forget()
        self._ended(_describe(status))

    def _forget(self) -> None:
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._pidfd = -1
        self._channel.close()


def _describe(status: int) -> str:
    if status < 0:
        return f"signal {-status}"
    return f"exit status {status}" + " (out of memory)" * (status == OUT_OF_MEMORY)
