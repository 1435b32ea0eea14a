"""Counts requests that fail with one of two endpoints, for each path and for kube-proxy.

Run it as ``python -m tests.reliability.path_failures``, as root or, without the paths with hooks,
in ``unshare -Urn``; arguments are the paths to measure. It prints the table of docs/paths.md.
kube-proxy and its API server are the same as in ``make cluster``, and are built if they are
missing. Neither kube-proxy's slices nor this proxy's manifest change.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path as Folder

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
from tests.cluster.nodes.clients import now
from tests.cluster.waiting import wait_for
from tests.hooked import HookedAgent
from tests.node.agents import Agent
from tests.node.load import Load, Outcome, pass_time
from tests.node.manifests import Service
from tests.node.testbed import Testbed
from tests.tools.markdown import table
from userspace_proxy_testing.sandbox import Pod
from userspace_proxy_testing.sandbox.backend_process import BackendProcess

RATE = 1_000
BEFORE_S, AFTER_S = 2.0, 8.0
# This is long enough that a busy machine causes no failure.
TIMEOUT_S = 3.0
READY_S = 60.0
LATE_S, TRIES = 0.5, 10
TARGET = 8080
WEB = ("10.96.0.10", 80)
KUBE_PROXY = "kube-proxy"
HOOKS = "-sockets"
"""The suffix of the name of a path with hooks."""
PATHS = (KUBE_PROXY, "kernel", f"kernel{HOOKS}", "auto", f"auto{HOOKS}", "userspace")
# A client retransmits a SYN after a second, so earlier dials may be in flight.
IN_FLIGHT_S = 1.5


def kill(_testbed: Testbed, _pod: Pod, server: BackendProcess) -> None:
    """Kill the endpoint's server, so that the kernel refuses clients."""
    server.stop()


def cut(_testbed: Testbed, pod: Pod, _server: BackendProcess) -> None:
    """Drop the packets that the endpoint sends."""
    pod.drop_traffic()


def remove_route(testbed: Testbed, pod: Pod, _server: BackendProcess) -> None:
    testbed.node.run(["ip", "route", "del", f"{pod.ip}/32"])


Fail = Callable[[Testbed, Pod, BackendProcess], None]
FAILURES: dict[str, Fail] = {
    "process killed": kill,
    "link cut": cut,
    "route removed": remove_route,
}


@contextlib.contextmanager
def ours(testbed: Testbed, web: Service, path: str) -> Iterator[None]:
    """Serve with this proxy during the block."""
    agent = testbed.agent
    agent.flags = (f"--path={path.removesuffix(HOOKS)}", "--workers=1")
    testbed.serve(web)
    taken = "userspace" if path == "userspace" else "kernel"
    wait_for("the path", lambda: agent.status()["ports"][0]["path"] == taken)
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


def measure(path: str, fail: Fail) -> list[float]:
    """Return the start times of failed requests, in seconds since the endpoint's failure.

    The measurement is repeated if other programs delay the client so much that requests would fail.
    """
    for _ in range(TRIES):
        outcome, failed_at = measure_once(path, fail)
        starts = [attempt.start for attempt in outcome.attempts]
        late = max(at - starts[0] - number / RATE for number, at in enumerate(starts))
        if late < LATE_S:
            return [a.start - failed_at for a in outcome.attempts if a.outcome != "ok"]
        print(f"{path}: a request was {late:.1f} s late; again", file=sys.stderr)  # noqa: T201
    raise SystemExit("the machine is too busy with other work")


def measure_once(path: str, fail: Fail) -> tuple[Outcome, float]:
    """Return the outcomes of requests, and the Unix time at which the endpoint failed."""
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
        servers = [pod.serve(None, tcp=TARGET) for pod in pods]
        web = Service("web", *WEB, endpoints=[str(pod.ip) for pod in pods])
        with kube_proxy(testbed, web) if path == KUBE_PROXY else ours(testbed, web, path):
            log, client = Folder(folder, "load"), testbed.pod("pod")
            load = Load(client, log, WEB, RATE, timeout_s=TIMEOUT_S, prefix=prefix)
            pass_time(BEFORE_S)
            failed_at = now()
            fail(testbed, pods[1], servers[1])
            pass_time(AFTER_S)
            return load.stop(), failed_at


def describe(found: Sequence[float]) -> str:
    """Return the number of failed requests, and how many began after a proxy could have noticed."""
    if not found:
        return "0"
    later = sum(at > IN_FLIGHT_S for at in found)
    return (
        f"{len(found):,}, {later:,} begun after {IN_FLIGHT_S} s, the last after {max(found):.1f} s"
    )


def main(paths: Sequence[str]) -> None:
    rows = []
    for path in paths:
        rows.append([path, *(describe(measure(path, fail)) for fail in FAILURES.values())])
        print(" | ".join(rows[-1]), file=sys.stderr)  # noqa: T201 - the table takes minutes
    print(table(("path", *FAILURES), rows))  # noqa: T201


if __name__ == "__main__":
    words = sys.argv[1:]
    if {*words} - {*PATHS}:
        raise SystemExit(f"{' '.join(words)}: none of {' '.join(PATHS)}")
    main(words or PATHS)
