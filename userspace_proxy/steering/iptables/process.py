"""The agent's end of one helper process; blocking, so for a thread of its own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
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
            SteeringError: What the helper said, or that it ended without an answer.
        """
        if self.is_new:
            self._start()
        assert self._socket is not None
        try:
            frames.send(self._socket, request)
            answer = frames.receive(self._socket)
        except (EOFError, OSError) as exc:
            raise SteeringError(
                f"cannot steer by iptables: the helper process for IPv{self.version} "
                f"{self._end(exc)}",
                hint="it is started anew by the next sync",
            ) from exc
        if "error" in answer:
            kind = SteeringConflict if answer["is_conflict"] else SteeringError
            raise kind(answer["error"], hint=answer["hint"])
        return answer["value"]

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
            self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the helper.
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
