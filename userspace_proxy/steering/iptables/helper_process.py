"""The agent's side of one helper process, and its JSON messages; all calls block.

Rule 1: a helper that exited is replaced on the next request; its rules stay in the kernel.
Rule 2: each helper that exits without an answer lengthens the pause before the next start.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable
from typing import IO, Any

from ...answering_child import AnsweringChild, ChildEnded
from ...clocks import Clocks
from ...errors import SteeringConflict, SteeringError
from ...model import Frontend, Protocol
from ...pacing import backoff_s
from ..programmer import Affected

_ENTRY = "userspace_proxy.steering.iptables.helper:main"
# The time limit for an answer: ten times as long as 10,000 Services take.
ANSWER_WITHIN_S = 60.0
# The pause after the second consecutive helper that exited without an answer; each further exit
# doubles it, up to the longest pause. The agent sends requests every second, and starting a helper
# takes 0.2 s of CPU time.
FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 30.0


class HelperEnded(SteeringError):
    """The helper exited or hung before it answered; it may have carried out the request."""


class HelperProcess:
    """A helper for one IP family; a request starts it if it isn't running."""

    def __init__(self, version: int) -> None:
        self.version = version
        self._child: AnsweringChild | None = None
        self._errors: IO[bytes] | None = None
        self.restarts = 0
        """The number of helpers that were replaced because they had crashed or timed out."""
        self._lost = False
        self._failures = 0
        """The number of consecutive helpers that exited without an answer."""
        self._not_before = 0.0
        self._last_words = ""

    @property
    def pid(self) -> int | None:
        return self._child.pid if self._child else None

    @property
    def is_new(self) -> bool:
        return self._child is None or self._child.has_ended

    def ask(self, request: dict[str, Any]) -> Any:
        """Send a request and return its answer.

        Raises:
            HelperEnded: The helper exited or hung before it answered.
            SteeringError: The helper reported an error, or can't be started (yet).
        """
        if self.is_new:
            self._check_pause()
            self._lost |= self._child is not None
            self._start()
            self.restarts += self._lost
            self._lost = False
        assert self._child is not None
        try:
            data, _ = self._child.ask(json.dumps(request).encode())
        except ChildEnded as exc:
            self._last_words = f"{exc}{self._printed()}"
            self.close()
            self._count_failure()
            raise HelperEnded(
                f"cannot steer by iptables: the helper process for IPv{self.version} "
                f"{self._last_words}",
                hint="it is started anew by the next sync",
            ) from exc
        self._failures = 0
        answer = json.loads(data)
        if "error" in answer:
            kind = SteeringConflict if answer["is_conflict"] else SteeringError
            raise kind(answer["error"], hint=answer["hint"])
        return answer["value"]

    def close(self) -> None:
        """Terminate the helper and wait for it; idempotent."""
        if self._child is not None:
            self._child.close()
            self._child = None
        if self._errors is not None:
            self._errors.close()
            self._errors = None

    def _count_failure(self) -> None:
        self._lost = True
        self._failures += 1
        pause_s = backoff_s(self._failures - 1, FIRST_PAUSE_S, LONGEST_PAUSE_S)
        self._not_before = Clocks.monotonic() + pause_s

    def _check_pause(self) -> None:
        """Raise a SteeringError if no helper may be started yet."""
        rest_s = self._not_before - Clocks.monotonic()
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
            # Keep the output in memory, because a container's root file system may be read-only.
            self._errors = os.fdopen(os.memfd_create("errors"), "w+b")
            self._child = AnsweringChild(
                _ENTRY,
                self.version,
                os.getpid(),
                answer_within_s=ANSWER_WITHIN_S,
                stderr=self._errors,
            )
        except OSError as exc:
            self.close()
            raise SteeringError(
                f"cannot start the iptables helper by {sys.executable or 'Python'}: {exc.strerror}"
            ) from exc

    def _printed(self) -> str:
        """Return a colon and the last line of the helper's error output; empty if it has none."""
        assert self._errors is not None
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return f": {lines[-1]}" if lines else ""


Row = tuple[str, str, int, int, int | None]
"""A frontend's address, protocol, port and last port, and its target port; None to remove it."""


def as_rows(ports: Affected) -> list[Row]:
    """Encode ports for a message."""
    return [(f.ip, f.protocol, f.port, f.last, port) for f, port in ports.items()]


def from_rows(rows: Iterable[Row]) -> dict[Frontend, Any]:
    """Decode the ports in a message."""
    return {
        Frontend(ip, port, Protocol(name), last=last): to_port
        for ip, name, port, last, to_port in rows
    }
