"""goload's own tests, in Go, and its clients against its servers."""

import contextlib
import json
import os
import select
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import benchmarks
from benchmarks.loads import LOADS, DelayedAckLoad
from benchmarks.sites import PORTS
from benchmarks.tools import build_tools
from tests.cluster.build import find_go
from tests.processes import started

SOURCE = Path(benchmarks.__file__).parent / "goload"
DEADLINE_S = 300
ANSWER_S = 60
MESSAGE_BYTES = 64
# Source: TCP_DELACK_MIN of include/net/tcp.h is 40 ms; its timer may be a jiffy early.
DELAYED_ACK_S = 0.03

# Go compiles its library the first time.
pytestmark = pytest.mark.long


@pytest.mark.parametrize("words", [("vet",), ("test", "-count=1")])
def test_go_finds_nothing_wrong(words: tuple[str, ...]) -> None:
    done = subprocess.run(
        [find_go(), *words, "."],
        cwd=SOURCE,
        env={**os.environ, "GOWORK": "off", "GOTOOLCHAIN": "local"},
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def goload() -> Iterator[str]:
    program = str(build_tools().goload)
    flags = [f"--{port.name}={port.back}" for port in PORTS.values()]
    with started([program, "serve", *flags]) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"
        yield program


def address_of(port: str) -> str:
    return f"127.0.0.1:{PORTS[port].back}"


def run(goload: str, *words: str) -> dict[str, float]:
    done = subprocess.run(
        [goload, *words], capture_output=True, text=True, timeout=DEADLINE_S, check=True
    )
    said: dict[str, float] = json.loads(done.stdout)
    return said


def test_an_open_loop_sends_every_request_of_its_schedule(goload: str) -> None:
    said = run(goload, "open", f"--to={address_of('http')}", "--rate=400", "--seconds=0.5")
    assert said["count"] == 200
    assert said["errors"] == 0
    assert 0 < said["p50_us"] <= said["p99_us"] <= said["p999_us"] <= said["max_us"]


@pytest.mark.parametrize(
    "load",
    [load for load in LOADS.values() if isinstance(load, DelayedAckLoad)],
    ids=lambda x: x.key,
)
def test_exchanges_that_a_delayed_ack_would_hold_up_are_answered(
    goload: str, load: DelayedAckLoad
) -> None:
    command, *flags = load.words
    said = run(goload, command, f"--to={address_of(load.port)}", "--seconds=0.2", *flags)
    assert said["count"] > 0
    assert said["errors"] == 0


@contextlib.contextmanager
def slow_to_acknowledge() -> Iterator[int]:
    """Answer requests on the port that it yields, with delayed ACKs."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 0)

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    client, _ = listener.accept()
                    with client, contextlib.suppress(ConnectionError):
                        receive(client, MESSAGE_BYTES)
                        client.sendall(bytes(MESSAGE_BYTES))
                        client.recv(1)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(30)


def receive(sock: socket.socket, count: int) -> None:
    while count:
        data = sock.recv(count)
        if not data:
            raise ConnectionError("the stream ended")
        count -= len(data)


def test_a_client_that_writes_twice_without_nodelay_waits_for_an_ack(goload: str) -> None:
    with slow_to_acknowledge() as port:
        words = f"--to=127.0.0.1:{port}", "--seconds=0.3", "--parallel=1", "--writes=2", "--nagle"
        said = run(goload, "request", *words)
    assert said["count"] > 0
    assert said["p50_us"] > DELAYED_ACK_S * 1e6


@pytest.mark.usefixtures("goload")
def test_a_server_that_writes_twice_without_nodelay_waits_for_an_ack() -> None:
    with socket.socket() as sock:
        sock.settimeout(ANSWER_S)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 0)
        sock.connect(("127.0.0.1", PORTS["request"].back))
        began = time.monotonic()
        sock.sendall(bytes([2, 1]) + bytes(MESSAGE_BYTES - 2))
        receive(sock, MESSAGE_BYTES)
        assert time.monotonic() - began > DELAYED_ACK_S
        sock.sendall(b".")
        assert sock.recv(1) == b""


def test_a_server_with_a_banner_speaks_first_and_answers_a_request_that_is_whole(
    goload: str,
) -> None:
    with socket.create_connection(("127.0.0.1", PORTS["banner"].back), ANSWER_S) as sock:
        receive(sock, MESSAGE_BYTES)
        sock.sendall(bytes([1]) + bytes(MESSAGE_BYTES - 2))
        # The server has one thread, so it has read these bytes before it answers others.
        run(goload, "request", f"--to={address_of('banner')}", "--banner", "--seconds=0.1")
        assert select.select([sock], [], [], 0) == ([], [], [])
        sock.sendall(b".")
        receive(sock, MESSAGE_BYTES)
        sock.sendall(b".")
        assert sock.recv(1) == b""
