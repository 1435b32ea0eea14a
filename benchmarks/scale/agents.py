"""The real agent on a stage, with one worker and all default features."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from userspace_proxy.kernel.own_namespace import own_namespace_environment

from ..processes import family
from .stage import Stage

STOP_S = 15.0
_METRICS_S = 60.0
_SERIES = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$", re.MULTILINE)


class Agent:
    """The agent on one stage, which runs between ``start`` and ``stop``.

    Args:
        stage: The stage on which it runs.
        folder: An existing folder for its log.
        steering: ``iptables``, ``nftables``, ``local``.
        source: Flags that select the source of Services.
    """

    def __init__(self, stage: Stage, folder: Path, steering: str, source: Sequence[str]) -> None:
        self.stage = stage
        self._folder = folder
        self._flags = (f"--steering={steering}", *source)
        self._process: subprocess.Popen[str] | None = None

    @property
    def log(self) -> Path:
        """The file with the agent's output."""
        return self._folder / "agent.log"

    def start(self) -> float:
        """Start the agent; return the CLOCK_MONOTONIC time before the start, in seconds."""
        command = [
            *(sys.executable, "-m", "userspace_proxy", "run", "--hostname-override=node-1"),
            "--state-dir=",
            *(
                "--workers=1",
                "--drain-timeout=0s",
                f"--cluster-cidr={self.stage.node.ranges.whole[0]}",
            ),
            *self._flags,
        ]
        environment = {
            **os.environ,
            **own_namespace_environment(self.stage.node.pid),
            "XTABLES_LOCKFILE": str(self._folder / "xtables.lock"),
        }
        with self.log.open("w") as log:
            began = time.monotonic()
            self._process = self.stage.node.popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment
            )
        return began

    def stop(self) -> None:
        """Stop the agent. Idempotent."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    @property
    def pid(self) -> int:
        """The PID of the control process, even if it has exited; 0 before start and after stop."""
        return self._process.pid if self._process else 0

    @property
    def is_alive(self) -> bool:
        """Whether the agent is running."""
        return self._process is not None and self._process.poll() is None

    def pids(self) -> list[int]:
        """Return the PIDs of all the agent's processes; empty before start and after stop."""
        return family(self.pid) if self.pid else []

    def last_log_line(self) -> str:
        """Return the last line of the agent's log, or that the log is empty."""
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "the log is empty"

    def metrics(self) -> dict[tuple[str, str], float]:
        """Return the agent's metrics by name and labels."""
        url = "http://127.0.0.1:10249/metrics"
        client = [sys.executable, "-m", "userspace_proxy_testing.sandbox.client"]
        done = self.stage.node.run(
            [*client, "http", "--timeout", f"{_METRICS_S:g}", url], timeout=_METRICS_S + 5
        )
        return {
            (name, labels): float(value) for name, labels, value in _SERIES.findall(done.stdout)
        }
