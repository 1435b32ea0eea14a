"""One server process of the control plane and its log."""

from __future__ import annotations

import os
import re
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path

from .waiting import wait_for

LOG_TAIL_LINES = 20
"""What an error shows of a log: a panic's first lines are within it, and it fits a screen."""


class Child:
    """A process that was started; it runs until `kill`, or until it gives up by itself.

    It dies with the test run, even with one that is killed: the kernel sends it SIGKILL when the
    main thread of this process is gone.

    Args:
        command: What to run; the process takes its output and standard error to ``log``.
        log: Where they go, after what is in it already.
        prefix: A command that becomes ``command`` without forking, as ``nsenter`` does.
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
        """End the process by SIGKILL and wait until it is gone; idempotent."""
        self._process.kill()
        self._process.wait()

    def wait(self, deadline_s: float) -> None:
        """Wait until the process ends by itself.

        Raises:
            subprocess.TimeoutExpired: It still runs after that many seconds.
        """
        self._process.wait(deadline_s)

    def wait_for_output(self, pattern: str, *, since: int = 0) -> re.Match[str]:
        """Return what matches in the log, once something does.

        A process that shows a state only while it lasts may show it late: whatever ends the state
        comes after this call.

        Args:
            pattern: ``^`` and ``$`` match at each line.
            since: How many characters of the log to leave out: its size at a moment, or the end of
                an earlier match.

        Raises:
            AssertionError: The process ended without it, or the deadline passed.
        """
        wanted = re.compile(pattern, re.MULTILINE)

        def find() -> re.Match[str] | None:
            # What it wrote last is in the log once it has ended.
            status = self.status
            found = wanted.search(self.output(), since)
            assert found or status is None, f"{self.name} ended by {status}; {self.log_tail()}"
            return found

        return wait_for(f"{pattern!r} of {self.name}", find, hint=self.log_tail)

    def output(self) -> str:
        """Return the log; its end may be in the middle of a character that is being written."""
        return self.log.read_text(errors="replace")

    def log_tail(self) -> str:
        """Return the log's last lines, for an error."""
        lines = self.output().splitlines()
        return "\n".join(["the end of its log:", *lines[-LOG_TAIL_LINES:]])


def _dying_with_this_process() -> list[str]:
    """Return the command that ties a process's life to ours.

    The kernel ties it to the thread that forks, so another thread than the main one gets no tie:
    its end would take the servers with it.
    """
    if threading.current_thread() is threading.main_thread():
        return ["setpriv", "--pdeathsig", "KILL", "--"]
    return []
