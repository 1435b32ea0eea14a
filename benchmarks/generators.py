"""Runs the load generators, wrk and goload, and reads their reports."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
from collections.abc import Iterator
from typing import Any

from userspace_proxy.errors import SandboxError
from userspace_proxy_testing.sandbox.holder import read_line

from .metrics import Values
from .way import Way

MARGIN_S = 15.0
"""The seconds within which a command exits after its load has ended."""


def read_wrk(text: str) -> Values:
    """Return rate, count, p50, p99 and errors from wrk's output.

    Raises:
        SandboxError: The output has an unknown format.
    """
    count = re.search(r"(\d+) requests in", text)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", text)
    shares = dict(re.findall(r"^\s+(50|99)%\s+([\d.]+\w+) *$", text, re.MULTILINE))
    if count is None or rate is None or len(shares) != 2:
        raise SandboxError(f"cannot read wrk's output: {text.strip()[-200:]}")
    complaints = re.findall(r"^ *(?:Socket errors|Non-2xx or 3xx.*?): (.*)$", text, re.MULTILINE)
    errors = [int(number) for line in complaints for number in re.findall(r"\d+", line)]
    return {
        "count": float(count[1]),
        "rate": float(rate[1]),
        "p50_ms": _milliseconds(shares["50"]),
        "p99_ms": _milliseconds(shares["99"]),
        "errors": float(sum(errors)),
    }


def _milliseconds(text: str) -> float:
    number, unit = re.fullmatch(r"([\d.]+)([a-z]+)", text).groups()  # type: ignore[union-attr]
    return float(number) * {"us": 1e-3, "ms": 1.0, "s": 1e3, "m": 60e3}[unit]


def run_goload(way: Way, port: str, seconds: float, *words: str) -> dict[str, Any]:
    """Run goload on a way; return its report."""
    name, *flags = words
    command = [way.site.goload, name, "--to", way.address(port), f"--seconds={seconds}", *flags]
    done = way.site.client.run(way.as_client(command), timeout=seconds + MARGIN_S)
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def timings(said: dict[str, Any]) -> Values:
    """Return the timings and errors from a report of goload."""
    return {
        "p50_ms": said["p50_us"] / 1e3,
        "p99_ms": said["p99_us"] / 1e3,
        "errors": said["errors"],
    }


class HeldClient:
    """A goload that holds connections and sends messages on command."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def read(self, timeout_s: float) -> dict[str, Any]:
        """Return the next report; raise SandboxError if no line arrives in time or isn't JSON."""
        assert self._process.stdout is not None
        line = read_line(self._process.stdout.fileno(), timeout_s)
        try:
            said: dict[str, Any] = json.loads(line)
        except ValueError as exc:
            raise SandboxError(f"cannot hold connections: the client said {line!r}") from exc
        return said

    def talk(self, seconds: float) -> dict[str, Any]:
        """Send messages on all connections for this many seconds; return the report."""
        assert self._process.stdin is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        return self.read(seconds + MARGIN_S)


@contextlib.contextmanager
def hold(way: Way, port: str, connections: int, seconds: float) -> Iterator[HeldClient]:
    """Open connections, which are closed when the block ends.

    Raises:
        SandboxError: Some connections couldn't be opened.
    """
    flags = [f"--connections={connections}", f"--seconds={seconds}"]
    command = [way.site.goload, "hold", "--to", way.address(port), *flags]
    process = way.site.client.popen(
        way.as_client(command), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        client = HeldClient(process)
        opened = client.read(MARGIN_S * 2)
        if opened["failed"]:
            raise SandboxError(f"cannot hold {connections} connections: {opened}")
        yield client
    finally:
        process.kill()
        process.communicate()
