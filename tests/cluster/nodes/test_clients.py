"""What clients met: read from their log, and the prober that writes it."""

from __future__ import annotations

import itertools
import socket
import struct
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from tests.processes import started

from .clients import PROBER, read_attempts, toll_of
from .prober import LIVES_S

KEPT = len(LIVES_S)
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


def test_the_worst_client_counts() -> None:
    steady = "".join(f"{100 + tenth / 10:.3f} 0.010 ok\n" for tenth in range(35))
    runs = [list(read_attempts(text)) for text in (steady, LOG)]
    assert toll_of(runs, 100.0, 103.5).outage_s == pytest.approx(2.0)


def test_the_end_without_an_answer_counts() -> None:
    attempts = list(read_attempts("100.000 0.010 ok\n101.000 0.010 ConnectionRefusedError\n"))
    assert toll_of([attempts], 100.0, 109.0).outage_s == pytest.approx(8.99)


def test_the_prober_reports_the_result_of_each_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, outcomes_of(server) as outcomes:
        connection, _ = server.accept()
        with connection:
            connection.recv(1000)
            connection.sendall(b"HTTP/1.0 200 OK\r\n\r\n")
        assert next(outcomes) == "ok"
        server.close()
        assert next(what for what in outcomes if what == "ConnectionRefusedError")


def test_a_kept_connection_asks_many_times_and_another_one_once_it_was_reset() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        outcomes_of(server, "kept-TCP") as outcomes,
        ExitStack() as stack,
    ):
        first, *others = [stack.enter_context(server.accept()[0]) for _ in range(KEPT)]
        for connection in (first, *others, first):
            connection.recv(1000)
            connection.sendall(b"HTTP/1.1 200 OK\r\n")
            connection.sendall(b"\r\n")
        assert list(itertools.islice(outcomes, KEPT + 1)) == ["ok"] * (KEPT + 1)
        first.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        first.close()
        assert next(what for what in outcomes if what == "ConnectionResetError")
        server.accept()[0].close()


def test_a_kept_port_asks_many_times_and_again_without_an_answer() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        with outcomes_of(server, "kept-UDP") as outcomes:
            (lost, first), *others = [server.recvfrom(100) for _ in range(KEPT)]
            for text, client in others:
                server.sendto(text, client)
            text, client = next(
                (text, client)
                for text, client in iter(lambda: server.recvfrom(100), None)
                if client == first
            )
            assert text == lost
            server.sendto(text, client)
            assert list(itertools.islice(outcomes, KEPT)) == ["ok"] * KEPT


@contextmanager
def outcomes_of(server: socket.socket, kind: str = "TCP") -> Iterator[Iterator[str]]:
    """Run the prober; yield the outcomes that it prints."""
    port = str(server.getsockname()[1])
    command = [sys.executable, str(PROBER), "127.0.0.1", port, "20", kind]
    with started(command) as prober:
        assert prober.stdout is not None
        yield (line.split()[-1] for line in prober.stdout)
