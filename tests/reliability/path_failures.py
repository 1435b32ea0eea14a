"""Counts requests that fail while one of two endpoints does, for each path, and with kube-proxy.

Run it as ``python -m tests.reliability.path_failures``, as root or, without the paths with hooks,
in ``unshare -Urn``; further words are the paths to measure. It prints the table of docs/paths.md.
kube-proxy, and the API server that it needs, are those of ``make cluster``; they are built if they
are missing. Its slices are as constant as our manifest.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path as Folder
from typing import NamedTuple, cast

import uvloop

from tests.cluster.build import ensure_binaries
from tests.cluster.control_plane import ControlPlane
from tests.cluster.kube_proxy import (
    USER,
    USERS,
    find_kube_proxy,
    kube_proxy_command,
    kube_proxy_environment,
    put_objects,
)
from tests.cluster.waiting import wait_for
from tests.hooked import HookedAgent
from tests.node.agents import Agent
from tests.node.manifests import Service
from tests.node.testbed import Testbed
from tests.tools.markdown import table
from userspace_proxy_testing.sandbox import Pod

RATE = 1_000
BEFORE_S, AFTER_S = 2.0, 8.0
# Long enough that a busy machine is no failure.
TIMEOUT_S = 3.0
READY_S = 60.0
LATE_S, TRIES = 0.5, 10
TARGET = 8080
WEB = ("10.96.0.10", 80)
KUBE_PROXY = "kube-proxy"
HOOKS = "-sockets"
"""Ends the name of a path whose clients' connect() is translated by hooks."""
PATHS = (KUBE_PROXY, "kernel", f"kernel{HOOKS}", "auto", f"auto{HOOKS}", "userspace")
# A client repeats a SYN after a second; those that have dialled before are in flight.
IN_FLIGHT_S = 1.5
REQUEST = b"GET / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n"


Server = subprocess.Popen[str]


class Failed(NamedTuple):
    """A request that failed."""

    at: float
    """When it began, in seconds."""
    had_connected: bool


def kill(_testbed: Testbed, _pod: Pod, server: Server) -> None:
    """Kill the endpoint's server: its kernel refuses clients."""
    server.kill()


def cut(_testbed: Testbed, pod: Pod, _server: Server) -> None:
    """Let the endpoint's answers be lost."""
    pod.drop_traffic()


def remove_route(testbed: Testbed, pod: Pod, _server: Server) -> None:
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


async def request(began: float, failures: list[Failed]) -> None:
    """Make one request, and note it if it fails."""
    at = time.monotonic() - began
    has_connected = False
    try:
        async with asyncio.timeout(TIMEOUT_S):
            reader, writer = await asyncio.open_connection(*WEB)
            has_connected = True
            with contextlib.closing(writer):
                writer.write(REQUEST)
                if not await reader.read(1):
                    failures.append(Failed(at, has_connected))
    except (OSError, TimeoutError):
        failures.append(Failed(at, has_connected))


async def load() -> None:
    """Make ``RATE`` requests a second.

    Prints as JSON those that failed, and by how much the latest was behind its time.
    """
    failures: list[Failed] = []
    late = 0.0
    print("ready", flush=True)  # noqa: T201 - for its caller
    began = time.monotonic()
    count = int(RATE * (BEFORE_S + AFTER_S))
    async with asyncio.TaskGroup() as group:
        for number in range(count):
            delay = began + number / RATE - time.monotonic()
            late = max(late, -delay)
            if delay > 0:
                await asyncio.sleep(delay)  # noqa: TID251 - the rate of the load
            group.create_task(request(began, failures))
    print(json.dumps([failures, late]))  # noqa: T201 - its result


def start(pod: Pod, part: str, prefix: Sequence[str] = ()) -> Server:
    """Start a part of this program in a pod, and wait until it is ready.

    Args:
        prefix: The words before its command, which exec it.
    """
    command = [*prefix, sys.executable, "-m", "tests.reliability.path_failures", part]
    process = pod.popen(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


@contextlib.contextmanager
def ours(testbed: Testbed, web: Service, path: str) -> Iterator[None]:
    """Serve with this proxy."""
    agent = testbed.agent
    agent.flags = (f"--path={path.removesuffix(HOOKS)}", "--workers=1")
    testbed.serve(web)
    now = "userspace" if path == "userspace" else "kernel"
    wait_for("the path", lambda: agent.status()["ports"][0]["path"] == now)
    yield


@contextlib.contextmanager
def kube_proxy(testbed: Testbed, web: Service) -> Iterator[None]:
    node, (service, *others) = testbed.node, web.objects()
    namespace = {"kind": "Namespace", "metadata": {"name": service["metadata"]["namespace"]}}
    program = find_kube_proxy(sys.stderr.write)

    def is_served() -> bool:
        with contextlib.suppress(OSError):
            testbed["pod"].get(WEB)
            return True
        return False

    with ControlPlane(ensure_binaries(sys.stderr.write), prefix=node.prefix, users=USERS) as plane:
        put_objects(plane, node, [{"apiVersion": "v1", **namespace}, service, *others])
        process = node.popen(
            kube_proxy_command(program, node, plane.kubeconfig_for(USER)),
            stdin=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=kube_proxy_environment(),
        )
        try:
            wait_for("an answer", is_served, deadline_s=READY_S)
            yield
        finally:
            process.kill()
            process.wait(30)


def measure(path: str, fail: Fail) -> list[Failed]:
    """Return the requests that failed, by the seconds since the failure of the endpoint.

    Measures anew while other work delays the client: requests would fail because of that.
    """
    for _ in range(TRIES):
        failures, late = measure_once(path, fail)
        if late < LATE_S:
            return failures
        print(f"{path}: a request was {late:.1f} s late; again", file=sys.stderr)  # noqa: T201
    raise SystemExit("the machine is too busy with other work")


def measure_once(path: str, fail: Fail) -> tuple[list[Failed], float]:
    """Return the requests that failed, and how late the client was."""
    kind = HookedAgent if path.endswith(HOOKS) else Agent
    with (
        tempfile.TemporaryDirectory() as folder,
        contextlib.ExitStack() as groups,
        Testbed(Folder(folder), "nftables", clients=("pod",), agent=kind) as testbed,
    ):
        prefix: Sequence[str] = ()
        if isinstance(testbed.agent, HookedAgent):
            groups.callback(testbed.agent.group.close)
            prefix = testbed.agent.group.prefix
        pods = [testbed.sandbox.add_pod(name) for name in ("good", "bad")]
        servers = [start(pod, "serve") for pod in pods]
        web = Service("web", *WEB, endpoints=[str(pod.ip) for pod in pods])
        with kube_proxy(testbed, web) if path == KUBE_PROXY else ours(testbed, web, path):
            client = start(testbed.pod("pod"), "load", prefix)
            began = time.monotonic()
            time.sleep(BEFORE_S)  # noqa: TID251 - the load begins before the failure
            failed_at = time.monotonic() - began
            fail(testbed, pods[1], servers[1])
            output, _ = client.communicate(timeout=60)
    failures, late = json.loads(output)
    return [Failed(at - failed_at, had_connected) for at, had_connected in failures], late


def describe(found: Sequence[Failed]) -> str:
    """Return how many requests failed, and what no proxy knew before, or knew then."""
    if not found:
        return "0"
    connected = sum(failed.had_connected for failed in found)
    later = sum(failed.at > IN_FLIGHT_S for failed in found)
    last = max(failed.at for failed in found)
    return (
        f"{len(found):,}, {connected:,} after they had connected, "
        f"{later:,} begun after {IN_FLIGHT_S} s, the last after {last:.1f} s"
    )


def main(paths: Sequence[str]) -> None:
    rows = []
    for path in paths:
        rows.append([path, *(describe(measure(path, fail)) for fail in FAILURES.values())])
        print(" | ".join(rows[-1]), file=sys.stderr)  # noqa: T201 - the table takes minutes
    print(table(("path", *FAILURES), rows))  # noqa: T201


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["load"]:
            uvloop.run(load())
        case ["serve"]:
            uvloop.run(serve())
        case words if {*words} <= {*PATHS}:
            main(words or PATHS)
        case words:
            raise SystemExit(f"{' '.join(words)}: none of {' '.join(PATHS)}")
