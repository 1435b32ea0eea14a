"""What clients met: read from their log, and the prober that writes it."""

from __future__ import annotations

import socket
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.processes import started

from .clients import PROBER, read_attempts, toll_of

LOG = """\
100.000 0.010 ok
100.500 0.010 ok
101.000 0.010 ConnectionRefusedError
101.500 1.010 ok
102.000 5.000 TimeoutError
103.000 0.010 ok
"""


def test_the_toll_counts_failures_delays_and_the_longest_outage() -> None:
    toll = toll_of([list(read_attempts(LOG))], 100.0, 103.5)
    assert (toll.made, toll.failed) == (6, Counter(ConnectionRefusedError=1, TimeoutError=1))
    assert (toll.lost, toll.late) == (2, 1)
    # From the answer at 100.51 to that at 102.51.
    assert toll.outage_s == pytest.approx(2.0)


def test_the_prober_reports_the_result_of_each_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, outcomes_of(server) as outcomes:
        connection, _ = server.accept()
        with connection:
            connection.recv(1000)
            connection.sendall(b"HTTP/1.0 200 OK\r\n\r\n")
        assert next(outcomes) == "ok"
        server.close()
        assert next(what for what in outcomes if what == "ConnectionRefusedError")


@contextmanager
def outcomes_of(server: socket.socket, kind: str = "TCP") -> Iterator[Iterator[str]]:
    """Run the prober; yield the outcomes that it prints."""
    port = str(server.getsockname()[1])
    command = [sys.executable, str(PROBER), "127.0.0.1", port, "20", kind]
    with started(command) as prober:
        assert prober.stdout is not None
        yield (line.split()[-1] for line in prober.stdout)
