"""One server process of the control plane and its log."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path

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

    def log_tail(self) -> str:
        """Return the log's last lines, for an error."""
        lines = self.log.read_text(errors="replace").splitlines()
        return "\n".join(["the end of its log:", *lines[-LOG_TAIL_LINES:]])


def _dying_with_this_process() -> list[str]:
    """Return the command that ties a process's life to ours.

    The kernel ties it to the thread that forks, so another thread than the main one gets no tie:
    its end would take the servers with it.
    """
    if threading.current_thread() is threading.main_thread():
        return ["setpriv", "--pdeathsig", "KILL", "--"]
    return []
