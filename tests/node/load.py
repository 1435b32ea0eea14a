"""Steady new connections to a Service, or datagrams, and what became of them.

The client is the prober of the cluster's tests, in a namespace instead of a pod.
"""

from __future__ import annotations

import signal
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.nodes.clients import LATE_S, PROBER, Attempt, read_attempts, toll_of
from tests.cluster.waiting import wait_for
from userspace_proxy_testing.sandbox import Namespace

TIMEOUT_S = 5.0
"""The prober waits this long for an answer."""
_END_S = 30.0
"""For its end, beyond that; also for its start, on a busy machine."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of connections, in the order in which they began."""

    attempts: Sequence[Attempt]

    def since(self, start: float) -> Outcome:
        """Return those that began at this moment (Unix time) or later."""
        return Outcome([attempt for attempt in self.attempts if attempt.start >= start])

    def until(self, end: float) -> Outcome:
        """Return those that began before this moment (Unix time)."""
        return Outcome([attempt for attempt in self.attempts if attempt.start < end])

    @property
    def made(self) -> int:
        return len(self.attempts)

    @property
    def failed(self) -> Counter[str]:
        """Those that failed, by what went wrong."""
        return Counter(attempt.outcome for attempt in self.attempts if attempt.outcome != "ok")

    @property
    def outage_s(self) -> float:
        """The longest time without a successful connection, where one failed; otherwise 0."""
        if not self.failed:
            return 0.0
        start, end = self.attempts[0].start, max(attempt.end for attempt in self.attempts)
        return toll_of([self.attempts], start, end).outage_s

    @property
    def slowest_s(self) -> float:
        """How long the slowest successful one took; 0 without any."""
        return max((a.seconds for a in self.attempts if a.outcome == "ok"), default=0.0)

    @property
    def p99_ms(self) -> float:
        """The 99th percentile of all, failed ones included."""
        if len(self.attempts) < 2:
            return 0.0
        return 1e3 * statistics.quantiles([a.seconds for a in self.attempts], n=100)[98]

    def back_after(self, repaired: float) -> float:
        """Return the seconds from a repair to the end of the last connection that failed or waited.

        Args:
            repaired: Unix time; connections that began earlier don't count.
        """
        bad = [
            attempt.end - repaired
            for attempt in self.attempts
            if attempt.start >= repaired and (attempt.outcome != "ok" or attempt.seconds >= LATE_S)
        ]
        return max(bad, default=0.0)


class Load:
    """A client that connects at a steady rate until it is stopped.

    Args:
        log: The file for its attempts; replaced.
        rate: Connections a second.
        protocol: ``TCP`` or ``UDP``.
        timeout_s: How long each waits for its answer.
        prefix: The words before the client's command, which exec it.
    """

    def __init__(
        self,
        client: Namespace,
        log: Path,
        address: tuple[str, int],
        rate: float,
        *,
        protocol: str = "TCP",
        timeout_s: float = TIMEOUT_S,
        prefix: Sequence[str] = (),
    ) -> None:
        self._log = log
        self._end_s = timeout_s + _END_S
        words = (*address, rate, protocol, timeout_s)
        with log.open("w") as stream:
            self._process = client.popen(
                [*prefix, sys.executable, "-IS", str(PROBER), *map(str, words)],
                stdin=subprocess.DEVNULL,
                stdout=stream,
            )
        wait_for("the first connection", lambda: self.outcome().attempts, deadline_s=self._end_s)

    def outcome(self) -> Outcome:
        """Return the attempts that are over."""
        lines = self._log.read_text().rpartition("\n")[0]
        return Outcome(sorted(read_attempts(lines), key=lambda attempt: attempt.start))

    def stop(self) -> Outcome:
        """Start no more connections, wait for the open ones, and return all."""
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(self._end_s)
        return self.outcome()


def pass_time(seconds: float) -> None:
    """Let a load run for some time: the one pause here that waits for nothing else."""
    time.sleep(seconds)  # noqa: TID251 - the length of a measurement
