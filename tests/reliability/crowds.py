"""Starts crowds of clients (``crowd.py``) in a namespace and reads their reports."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from userspace_proxy_testing.sandbox import Namespace
from userspace_proxy_testing.sandbox.holder import read_line

PROGRAM = Path(__file__).with_name("crowd.py")
CROWD_S = 60.0


def run_crowd(client: Namespace, kind: str, count: int, address: tuple[str, int]) -> dict[str, Any]:
    """Run a crowd until it exits; return its report."""
    done = client.run(_command(kind, count, address), timeout=CROWD_S)
    said: dict[str, Any] = json.loads(done.stdout)
    return said


@contextlib.contextmanager
def holding(
    client: Namespace, count: int, address: tuple[str, int], text: str = ""
) -> Iterator[dict[str, Any]]:
    """Open connections on which nothing is read; yield the report, and close them at the end."""
    process = client.popen(
        [*_command("hold", count, address), text],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield json.loads(read_line(process.stdout.fileno(), CROWD_S))
    finally:
        process.kill()
        process.wait(30)
        process.stdin.close()
        process.stdout.close()


def _command(kind: str, count: int, address: tuple[str, int]) -> list[str]:
    return [sys.executable, "-IS", str(PROGRAM), kind, str(count), address[0], str(address[1])]
