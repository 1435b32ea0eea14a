"""Counts requests that fail while one of two endpoints does, for each path of a Service.

Run it as ``python -m tests.reliability.path_failures``, as root or in ``unshare -Urn``. It prints
the table of docs/paths.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path as Folder
from typing import cast

import uvloop

from tests.cluster.waiting import wait_for
from tests.node.manifests import Service
from tests.node.testbed import Testbed
from userspace_proxy.sandbox import Pod

RATE = 1_000
BEFORE_S, AFTER_S = 2.0, 8.0
# Long enough that a busy machine is no failure.
TIMEOUT_S = 3.0
TARGET = 8080
WEB = ("10.96.0.10", 80)
PATHS = ("kernel", "auto", "userspace")
REQUEST = b"GET / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n"


Server = subprocess.Popen[str]


def kill(_testbed: Testbed, _pod: Pod, server: Server) -> None:
    """Kill the endpoint's server: its kernel refuses clients."""
    server.kill()


def cut(_testbed: Testbed, pod: Pod, _server: Server) -> None:
    """Let the endpoint's answers be lost."""
    pod.drop_traffic()


def remove_route(testbed: Testbed, pod: Pod, _server: Server) -> None:
    """Remove the node's route to the endpoint."""
    testbed.node.run(["ip", "route", "del", f"{pod.ip}/32"])


Fail = Callable[[Testbed, Pod, Server], None]
FAILURES: dict[str, Fail] = {
    "process killed": kill,
    "link cut": cut,
    "route removed": remove_route,
}


class Answer(asyncio.Protocol):
    """Answers a request and hangs up: cheap, so that one endpoint can serve all requests."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember where to answer."""
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, _data: bytes) -> None:
        """Answer, however short the request is."""
        self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        self.transport.close()


async def serve() -> None:
    """Be an endpoint."""
    server = await asyncio.get_running_loop().create_server(Answer, "0.0.0.0", TARGET, backlog=4096)
    print("ready", flush=True)  # noqa: T201 - for its caller
    await server.serve_forever()


async def request(began: float, failures: list[float]) -> None:
    """Make one request, and note when it began if it fails."""
    at = time.monotonic() - began
    try:
        async with asyncio.timeout(TIMEOUT_S):
            reader, writer = await asyncio.open_connection(*WEB)
            with contextlib.closing(writer):
                writer.write(REQUEST)
                if not await reader.read(1):
                    failures.append(at)
    except (OSError, TimeoutError):
        failures.append(at)


async def load() -> None:
    """Make ``RATE`` requests a second; print when those began that failed, as JSON."""
    failures: list[float] = []
    print("ready", flush=True)  # noqa: T201 - for its caller
    began = time.monotonic()
    count = int(RATE * (BEFORE_S + AFTER_S))
    async with asyncio.TaskGroup() as group:
        for number in range(count):
            delay = began + number / RATE - time.monotonic()
            if delay > 0:
                await asyncio.sleep(delay)  # noqa: TID251 - the rate of the load
            group.create_task(request(began, failures))
    print(json.dumps(failures))  # noqa: T201 - its result


def start(pod: Pod, part: str) -> Server:
    """Start a part of this program in a pod, and wait until it is ready."""
    command = [sys.executable, "-m", "tests.reliability.path_failures", part]
    process = pod.popen(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def measure(path: str, fail: Fail) -> list[float]:
    """Return when requests began that failed, in seconds since the failure of the endpoint."""
    with (
        tempfile.TemporaryDirectory() as folder,
        Testbed(Folder(folder), "nftables", f"--path={path}", "--workers=1") as testbed,
    ):
        pods = [testbed.sandbox.add_pod(name) for name in ("good", "bad")]
        servers = [start(pod, "serve") for pod in pods]
        testbed.serve(Service("web", *WEB, endpoints=[str(pod.ip) for pod in pods]))
        now = "userspace" if path == "userspace" else "kernel"
        wait_for("the path", lambda: testbed.agent.status()["ports"][0]["path"] == now)
        client = start(testbed.pod("pod"), "load")
        began = time.monotonic()
        time.sleep(BEFORE_S)  # noqa: TID251 - the load begins before the failure
        failed_at = time.monotonic() - began
        fail(testbed, pods[1], servers[1])
        output, _ = client.communicate(timeout=60)
    return [at - failed_at for at in json.loads(output)]


def main() -> None:
    """Print the table."""
    print(f"| path | {' | '.join(FAILURES)} |\n|---|{'---|' * len(FAILURES)}")  # noqa: T201
    for path in PATHS:
        cells = []
        for fail in FAILURES.values():
            found = measure(path, fail)
            last = f", the last after {max(found):.1f} s" if found else ""
            cells.append(f"{len(found):,}{last}")
        print(f"| {path} | {' | '.join(cells)} |", flush=True)  # noqa: T201


if __name__ == "__main__":
    if sys.argv[1:]:
        uvloop.run(load() if sys.argv[1] == "load" else serve())
    else:
        main()
