"""A server process of the control plane, and the file with its log."""

from __future__ import annotations

import http.client
import os
import re
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

from .waiting import wait_for

LOG_TAIL_LINES = 20
"""The number of log lines in an error: enough for the start of a panic, few enough for a screen."""


class Child:
    """A started process; it runs until `kill`, or until it exits.

    If the main thread creates it, it dies with the test run, even if that is killed: the kernel
    sends it SIGKILL when the main thread has exited.

    Args:
        command: The command to run; its output and standard error are written to ``log``.
        log: The file to which both are appended.
        prefix: A command that execs ``command`` without forking, like ``nsenter``.
    """

    def __init__(
        self, command: Sequence[str | Path], log: Path, prefix: Sequence[str] = ()
    ) -> None:
        self.name = Path(command[0]).name
        self.log = log
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [*prefix, *_dying_with_this_process(), *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=os.environ | {"NO_PROXY": "*"},
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def status(self) -> int | None:
        """The exit status, negative for a signal; None while the process runs."""
        return self._process.poll()

    def kill(self) -> None:
        """Kill the process with SIGKILL and wait until it has exited; idempotent."""
        self._process.kill()
        self._process.wait()

    def wait(self, deadline_s: float) -> None:
        """Wait until the process exits, without killing it.

        Raises:
            subprocess.TimeoutExpired: The process still runs after this many seconds.
        """
        self._process.wait(deadline_s)

    def wait_for_output(self, pattern: str, *, since: int = 0) -> re.Match[str]:
        """Return the match in the log once there is one.

        If a process logs a state only while it lasts, call this before ending the state, because
        the log may lag behind.

        Args:
            pattern: A regular expression, in which ``^`` and ``$`` match at each line.
            since: The number of characters of the log to skip: its former size, or the end of a
                match.

        Raises:
            AssertionError: The process exited without a match, or the deadline passed.
        """
        wanted = re.compile(pattern, re.MULTILINE)

        def find() -> re.Match[str] | None:
            # After the exit, the log contains the process's last output.
            status = self.status
            found = wanted.search(self.output(), since)
            assert found or status is None, f"{self.name} ended by {status}; {self.log_tail()}"
            return found

        return wait_for(f"{pattern!r} of {self.name}", find, hint=self.log_tail)

    def output(self) -> str:
        """Return the log; its end may be an incomplete character."""
        return self.log.read_text(errors="replace")

    def log_tail(self) -> str:
        """Return the log's last lines, for an error."""
        lines = self.output().splitlines()
        return "\n".join(["the end of its log:", *lines[-LOG_TAIL_LINES:]])


def _dying_with_this_process() -> list[str]:
    """Return a command prefix that makes a process end together with this one.

    It is empty in other threads than the main thread: the kernel ties the process to the thread
    that forks, whose end would kill the servers.
    """
    if threading.current_thread() is threading.main_thread():
        return ["setpriv", "--pdeathsig", "KILL", "--"]
    return []


READY_DEADLINE_S = 60.0
"""Seconds; a start takes 2 to 3 s on two idle cores, and up to ten times longer on CI machines."""


class ControlPlaneError(RuntimeError):
    """A server of the control plane didn't start, or a command for the control plane failed."""


def wait_until_ready(child: Child, condition: Callable[[], bool]) -> None:
    """Wait until the condition holds.

    Raises:
        ControlPlaneError: The process exited; the error contains the end of its log.
        DeadlineExceededError: It didn't hold in time; the error contains the end of the log."""

    def holds() -> bool:
        if child.status is not None:
            raise ControlPlaneError(
                f"cannot start {child.name}: it ended with status {child.status}; "
                + child.log_tail()
            )
        return condition()

    wait_for(f"{child.name} to be ready", holds, deadline_s=READY_DEADLINE_S, hint=child.log_tail)


def accepts(path: Path) -> bool:
    """Return whether a server accepts connections on a Unix socket."""
    with closing(socket.socket(socket.AF_UNIX)) as client:
        return client.connect_ex(str(path)) == 0


def serves_https(address: str, port: int, path: str, ca_file: Path, token: str) -> bool:
    """Return whether a server answers a GET with 200."""
    context = ssl.create_default_context(cafile=ca_file)
    with closing(
        http.client.HTTPSConnection(address, port, timeout=5, context=context)
    ) as connection:
        try:
            connection.request("GET", path, headers={"Authorization": f"Bearer {token}"})
            return connection.getresponse().status == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False
