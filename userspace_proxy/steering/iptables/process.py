"""The agent's end of one helper process; blocking, so for a thread of its own.

Rule 1: a helper that ends is started anew at the next request; the rules stay meanwhile.
Rule 2: one that ends soon after its start, again and again, is given more and more time.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import IO, Any

from ...errors import SteeringConflict, SteeringError
from . import frames

_MODULE = "userspace_proxy.steering.iptables.helper"
_IMPORT_ROOT = Path(__file__).parents[3]
# Ten times what 10,000 Services take; a helper that is silent for longer hangs.
ANSWER_WITHIN_S = 60.0
# How long a helper whose socket was closed may take to end.
END_WITHIN_S = 5.0
# The pause after the second helper in a row that ended without one answer; each further one
# doubles it. The agent asks each second, and a start costs 0.2 s of CPU.
FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 30.0


class HelperEnded(SteeringError):
    """The helper ended, or hung, before it answered: what it did of the request is unknown."""


class HelperProcess:
    """A helper that is started when it is first asked, and anew after it has ended.

    Args:
        version: The IP family that it programs, 4 or 6.
    """

    def __init__(self, version: int) -> None:
        self.version = version
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._errors: IO[bytes] | None = None
        self.restarts = 0
        """How many helpers were started in the place of one that had ended by itself."""
        self._lost = False
        self._failures = 0
        """How many helpers in a row ended without one answer."""
        self._not_before = 0.0
        self._last_words = ""

    @property
    def pid(self) -> int | None:
        """The process's id, or None while none runs."""
        return self._process.pid if self._process else None

    @property
    def is_new(self) -> bool:
        """Whether the next request goes to a helper that doesn't run yet."""
        return self._process is None or self._process.poll() is not None

    def ask(self, request: dict[str, Any]) -> Any:
        """Send a request and wait for its answer.

        Raises:
            HelperEnded: It ended without an answer.
            SteeringError: What the helper said, or that none is started yet.
        """
        if self.is_new:
            self._wait_for_its_time()
            self._lost |= self._process is not None
            self._start()
            self.restarts += self._lost
            self._lost = False
        assert self._socket is not None
        try:
            frames.send(self._socket, request)
            answer = frames.receive(self._socket)
        except (EOFError, OSError) as exc:
            self._last_words = self._end(exc)
            self._count_failure()
            raise HelperEnded(
                f"cannot steer by iptables: the helper process for IPv{self.version} "
                f"{self._last_words}",
                hint="it is started anew by the next sync",
            ) from exc
        self._failures = 0
        if "error" in answer:
            kind = SteeringConflict if answer["is_conflict"] else SteeringError
            raise kind(answer["error"], hint=answer["hint"])
        return answer["value"]

    def _count_failure(self) -> None:
        self._lost = True
        self._failures += 1
        if self._failures > 1:
            pause_s = min(FIRST_PAUSE_S * 2.0 ** (self._failures - 2), LONGEST_PAUSE_S)
            self._not_before = time.monotonic() + pause_s

    def _wait_for_its_time(self) -> None:
        """Refuse to start a helper while those before it ended too soon.

        Raises:
            SteeringError: Says how they ended, and when the next one is started.
        """
        rest_s = self._not_before - time.monotonic()
        if self._failures > 1 and rest_s > 0:
            raise SteeringError(
                f"cannot steer by iptables: {self._failures} helper processes for "
                f"IPv{self.version} in a row ended without an answer, the last one "
                f"{self._last_words}",
                hint=f"the next one is started in {rest_s:.0f} s",
            )

    def close(self) -> None:
        """End the helper and wait for it; idempotent."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if self._process is not None:
            try:
                self._process.wait(END_WITHIN_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None
        if self._errors is not None:
            self._errors.close()
            self._errors = None

    def _start(self) -> None:
        self.close()
        try:
            ours, theirs = socket.socketpair()
            self._socket = ours
            # In memory: a container's root may be read-only.
            self._errors = os.fdopen(os.memfd_create("errors"), "w+b")
        except OSError as exc:
            self.close()
            raise SteeringError(f"cannot start the iptables helper: {exc.strerror}") from exc
        ours.settimeout(ANSWER_WITHIN_S)
        # -P: nothing is imported from the directory that we happen to stand in.
        command = [sys.executable, "-P", "-m", _MODULE]
        paths = [str(_IMPORT_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        with theirs:
            try:
                self._process = subprocess.Popen(
                    [*command, str(theirs.fileno()), str(self.version), str(os.getpid())],
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    # Ctrl-C is for the agent, which needs the helper to clean up.
                    start_new_session=True,
                    stderr=self._errors,
                    env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
                )
            except OSError as exc:
                self.close()
                raise SteeringError(
                    f"cannot start the iptables helper by {sys.executable or 'Python'}: "
                    f"{exc.strerror}"
                ) from exc

    def _end(self, exc: BaseException) -> str:
        """End what is left of the helper; return how it ended, in words."""
        assert self._process is not None
        assert self._errors is not None
        if isinstance(exc, TimeoutError):
            self._process.kill()
            self.close()
            return f"gave no answer within {ANSWER_WITHIN_S:g} s"
        try:
            status = self._process.wait(END_WITHIN_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            status = self._process.wait()
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        self.close()
        return f"ended with status {status}: {lines[-1] if lines else 'it said nothing'}"
