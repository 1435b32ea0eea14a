"""One helper process from the agent's side, and the messages to it; all calls block.

    message: length (four bytes), JSON

Rule 1: a helper that ended is replaced at the next request; its rules stay in force meanwhile.
Rule 2: after helpers that ended without an answer, the pause before the next one grows.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterable
from typing import IO, Any

from ...child import end_child, pause_before_start, start_child
from ...errors import SteeringConflict, SteeringError
from ...model import Frontend, Protocol
from ..programmer import Touched

_ENTRY = "userspace_proxy.steering.iptables.helper:main"
# Ten times what 10,000 Services take.
ANSWER_WITHIN_S = 60.0
END_WITHIN_S = 5.0
# The pause after the second helper in a row that ended without an answer; each further one
# doubles it. The agent asks each second, and a start costs 0.2 s of CPU.
FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 30.0
_LENGTH = struct.Struct("!I")


class HelperEnded(SteeringError):
    """The helper ended or hung before it answered; it may have carried out the request."""


class HelperProcess:
    """A helper for one IP family, started by the first request, and again after it has ended."""

    def __init__(self, version: int) -> None:
        self.version = version
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._errors: IO[bytes] | None = None
        self.restarts = 0
        """How many helpers replaced one that had ended by itself."""
        self._lost = False
        self._failures = 0
        """How many helpers in a row ended without an answer."""
        self._not_before = 0.0
        self._last_words = ""

    @property
    def pid(self) -> int | None:
        """The process's id, or None while none runs."""
        return self._process.pid if self._process else None

    @property
    def is_new(self) -> bool:
        """Whether the next request starts a helper."""
        return self._process is None or self._process.poll() is not None

    def ask(self, request: dict[str, Any]) -> Any:
        """Send a request and return its answer.

        Raises:
            HelperEnded: It ended without an answer.
            SteeringError: The helper's error, or the next helper may not be started yet.
        """
        if self.is_new:
            self._check_pause()
            self._lost |= self._process is not None
            self._start()
            self.restarts += self._lost
            self._lost = False
        assert self._socket is not None
        try:
            send(self._socket, request)
            answer = receive(self._socket)
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

    def close(self) -> None:
        """End the helper and wait for it; idempotent."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if self._process is not None:
            end_child(self._process, END_WITHIN_S)
            self._process = None
        if self._errors is not None:
            self._errors.close()
            self._errors = None

    def _count_failure(self) -> None:
        self._lost = True
        self._failures += 1
        pause_s = pause_before_start(self._failures, FIRST_PAUSE_S, LONGEST_PAUSE_S)
        self._not_before = time.monotonic() + pause_s

    def _check_pause(self) -> None:
        """Raise a SteeringError if no helper may be started yet."""
        rest_s = self._not_before - time.monotonic()
        if rest_s > 0:
            raise SteeringError(
                f"cannot steer by iptables: {self._failures} helper processes for "
                f"IPv{self.version} in a row ended without an answer, the last one "
                f"{self._last_words}",
                hint=f"the next one is started in {rest_s:.0f} s",
            )

    def _start(self) -> None:
        self.close()
        try:
            # In memory: a container's root may be read-only.
            self._errors = os.fdopen(os.memfd_create("errors"), "w+b")
            # In a session of its own: after Ctrl-C the agent needs it to clean up.
            self._process, self._socket = start_child(
                _ENTRY, self.version, os.getpid(), stderr=self._errors, has_own_session=True
            )
        except OSError as exc:
            self.close()
            raise SteeringError(
                f"cannot start the iptables helper by {sys.executable or 'Python'}: {exc.strerror}"
            ) from exc
        self._socket.settimeout(ANSWER_WITHIN_S)

    def _end(self, exc: BaseException) -> str:
        """End what is left of the helper; return how it ended, in words."""
        assert self._process is not None
        assert self._errors is not None
        if isinstance(exc, TimeoutError):
            self._process.kill()
            self.close()
            return f"gave no answer within {ANSWER_WITHIN_S:g} s"
        status = end_child(self._process, END_WITHIN_S)
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        self.close()
        return f"ended with status {status}: {lines[-1] if lines else 'it printed nothing'}"


def send(connection: socket.socket, message: Any) -> None:
    """Send one message."""
    data = json.dumps(message, separators=(",", ":")).encode()
    connection.sendall(_LENGTH.pack(len(data)) + data)


def receive(connection: socket.socket) -> Any:
    """Wait for one message.

    Raises:
        EOFError: The other side closed the connection.
    """
    (length,) = _LENGTH.unpack(_exactly(connection, _LENGTH.size))
    return json.loads(_exactly(connection, length))


def _exactly(connection: socket.socket, size: int) -> bytes:
    parts = bytearray()
    while len(parts) < size:
        data = connection.recv(size - len(parts))
        if not data:
            raise EOFError
        parts += data
    return bytes(parts)


Row = tuple[str, str, int, int | None]
"""A frontend's address, protocol and port, and the port that it is steered to."""


def as_rows(ports: Touched) -> list[Row]:
    """Return ports in the form of messages."""
    return [(f.ip, f.protocol, f.port, port) for f, port in ports.items()]


def from_rows(rows: Iterable[Row]) -> dict[Frontend, Any]:
    """Return the ports of a message."""
    return {Frontend(ip, port, Protocol(name)): to_port for ip, name, port, to_port in rows}
