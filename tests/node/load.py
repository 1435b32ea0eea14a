"""Opens connections or sends datagrams to a Service at a steady rate, and records the outcomes.

The client is the prober of the cluster tests, in a namespace instead of a pod.
"""

from __future__ import annotations

import signal
import socket
import statistics
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.nodes.clients import LATE_S, PROBER, Attempt, read_attempts, toll_of
from tests.cluster.waiting import wait_for
from userspace_proxy_testing.sandbox import Namespace

TIMEOUT_S = 5.0
"""The time for which the prober waits for an answer."""
_END_S = 30.0
"""The additional time for the prober's exit, and for its start on a busy machine."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcomes of connections, or of UDP queries, in the order in which they began."""

    attempts: Sequence[Attempt]

    def since(self, start: float) -> Outcome:
        """Return the outcomes of connections that began at this Unix time or later."""
        return Outcome([attempt for attempt in self.attempts if attempt.start >= start])

    def until(self, end: float) -> Outcome:
        """Return the outcomes of connections that began before this Unix time."""
        return Outcome([attempt for attempt in self.attempts if attempt.start < end])

    @property
    def made(self) -> int:
        return len(self.attempts)

    @property
    def failed(self) -> Counter[str]:
        """The number of failed connections, by error."""
        return Counter(attempt.outcome for attempt in self.attempts if attempt.outcome != "ok")

    @property
    def outage_s(self) -> float:
        """The longest time without a successful connection if one failed; otherwise 0."""
        if not self.failed:
            return 0.0
        start, end = self.attempts[0].start, max(attempt.end for attempt in self.attempts)
        return toll_of([self.attempts], start, end).outage_s

    @property
    def slowest_s(self) -> float:
        """The duration of the slowest successful connection; 0 if none succeeded."""
        return max((a.seconds for a in self.attempts if a.outcome == "ok"), default=0.0)

    @property
    def p99_ms(self) -> float:
        """The 99th percentile of all connections' durations; 0 if there are fewer than two."""
        if len(self.attempts) < 2:
            return 0.0
        return 1e3 * statistics.quantiles([a.seconds for a in self.attempts], n=100)[98]

    def back_after(self, repaired: float) -> float:
        """Return the seconds from a repair to the end of the last failed or late connection, or 0.

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
        rate: Connections per second.
        protocol: ``TCP`` or ``UDP``.
        timeout_s: The time for which each connection waits for its answer.
        prefix: A command that execs the client's command.
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
        """Return the completed attempts."""
        lines = self._log.read_text().rpartition("\n")[0]
        return Outcome(sorted(read_attempts(lines), key=lambda attempt: attempt.start))

    def stop(self) -> Outcome:
        """Start no more connections, wait for open connections, and return all outcomes."""
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(self._end_s)
        return self.outcome()


def pass_time(seconds: float) -> None:
    """Wait while a load runs: the only wait in this folder without a condition."""
    time.sleep(seconds)  # noqa: TID251 - the length of a measurement


_MESSAGE = b"are you there?"
# The field tcpi_total_retrans of struct tcp_info. Source: linux/tcp.h.
_RETRANSMITTED = struct.Struct("=100xI")
# A connection without an answer for this long counts as ended.
_DEAD_S = 10.0


class EchoConnection:
    """A TCP connection on which a thread exchanges messages with an echo server.

    Args:
        sock: A connected socket; closed when the ``with`` block ends.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.broken = ""
        """The error that ended the connection before the block's end; empty if there is none."""
        self.retransmitted = 0
        """The number of segments that were retransmitted."""
        self._answers = 0
        self._sock = sock
        self._sock.settimeout(_DEAD_S)
        self._is_closing = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def wait_for_answers(self, *, count: int = 20) -> None:
        """Wait for this many further answers, or for the end of the connection."""
        wanted = self._answers + count
        wait_for("answers", lambda: bool(self.broken) or self._answers >= wanted)

    def _run(self) -> None:
        try:
            while not self._is_closing.wait(0.005):
                self._sock.sendall(_MESSAGE)
                got = b""
                while len(got) < len(_MESSAGE):
                    part = self._sock.recv(len(_MESSAGE) - len(got))
                    if not part:
                        raise ConnectionError("closed by the other side")
                    got += part
                self.retransmitted = _retransmitted(self._sock)
                self._answers += 1
        except OSError as exc:
            self.broken = str(exc) or type(exc).__name__

    def __enter__(self) -> EchoConnection:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._is_closing.set()
        self._thread.join(30)
        self._sock.close()


def _retransmitted(sock: socket.socket) -> int:
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _RETRANSMITTED.size)
    (count,) = _RETRANSMITTED.unpack(info)
    return int(count)
