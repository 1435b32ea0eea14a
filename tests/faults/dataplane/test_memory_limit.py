"""Readers that stall use up the memory of a process; the process and its other clients live on."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.cluster.waiting import wait_for
from tests.node.clients import http_get
from tests.processes import started
from tests.unit.port_numbers import free_port

READERS = 500
# A reader that stalls costs 0.2 to 0.25 MiB, so there is room for about 150; up to ten times as
# many where a slow backend sends little at a time.
MORE_READERS = 1_000
ROOM_MIB = 40
REQUESTS = 20
BACK_S = 5.0
ROOT = Path(__file__).parents[3]
BEGIN, END = "memory limit nearly reached", "memory is available again"
DEADLINE_S = 120.0


class Proxy(NamedTuple):
    """The process under test."""

    process: subprocess.Popen[str]
    web: tuple[str, int]
    """Sends as much as it is asked for."""
    cart: tuple[str, int]
    limit: int
    log_path: Path

    def log(self) -> str:
        return self.log_path.read_text()

    def size(self) -> int:
        """Return how much address space it uses."""
        status = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmSize"))


@pytest.fixture
def backends():
    """The ports of two backends: bytes as asked for, and HTTP."""
    source, http = free_port(), free_port()
    command = [sys.executable, "-m", "userspace_proxy_testing.sandbox.backends", "--name=cart"]
    with started([*command, f"--source={source}", f"--tcp={http}"]) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield str(source), str(http)


@pytest.fixture
def proxy(tmp_path, backends):
    """A data plane with little memory, which must not end."""
    log_path = tmp_path / "log"
    command = [sys.executable, "-m", "tests.faults.dataplane.short_of_memory", str(ROOM_MIB)]
    with (
        log_path.open("w") as log,
        started([*command, "127.0.0.1", *backends], stderr=log, cwd=ROOT) as process,
    ):
        assert process.stdout is not None
        web, cart, limit = map(int, process.stdout.readline().split())
        yield Proxy(process, ("127.0.0.1", web), ("127.0.0.1", cart), limit, log_path)
        process.communicate(timeout=DEADLINE_S)
        assert process.returncode == 0, log_path.read_text()


def stall(address: tuple[str, int]) -> socket.socket | None:
    """Return a connection that asks for a lot and reads nothing; None if it is reset."""
    sock = socket.socket()
    try:
        sock.settimeout(DEADLINE_S)
        sock.connect(address)
        sock.sendall(b"100000000\n")
    except ConnectionError:
        sock.close()
        return None
    return sock


def get(address: tuple[str, int]) -> str:
    sock = socket.socket()
    sock.settimeout(DEADLINE_S)
    return http_get(sock, address, "/")[1].strip()


@pytest.mark.long
def test_stalled_readers_are_reset_before_memory_runs_out(proxy):
    before = proxy.size()
    readers = [stall(proxy.web) for _ in range(READERS)]

    def is_short() -> bool:
        if len(readers) < READERS + MORE_READERS:
            readers.append(stall(proxy.web))
        return BEGIN in proxy.log()

    wait_for("a shortage", is_short, hint=proxy.log)
    assert [get(proxy.cart) for _ in range(REQUESTS)] == ["cart"] * REQUESTS
    assert proxy.size() < proxy.limit
    for sock in filter(None, readers):
        sock.close()
    began = time.monotonic()
    quarter = (proxy.limit - before) // 4
    wait_for("its memory back", lambda: proxy.size() < before + quarter, hint=proxy.log)
    assert get(proxy.cart) == "cart"
    wait_for("the end", lambda: END in proxy.log(), hint=proxy.log)
    assert time.monotonic() - began < BACK_S
    log = proxy.log()
    assert (log.count(BEGIN + ", accepting"), log.count(END)) == (1, 1)
    assert "Traceback" not in log
    assert "MemoryError" not in log
