"""Runs a sandbox's proxy on its node; its page is on the loopback of this machine or of a pod."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from userspace_proxy.cli.admin import AdminAddress
from userspace_proxy.clocks import Clocks
from userspace_proxy.errors import (
    ListenError,
    SandboxError,
    UserspaceProxyError,
    shortage_hint,
)
from userspace_proxy.kernel.own_namespace import own_namespace_environment

from ..sandbox import Pod, Sandbox
from ..sandbox.environment import without_proxies

NODE = "node-1"
"""The proxy's node name."""
PAGE_PORT = 10249
# A program that opens a listening socket in its namespace and sends it to its parent process.
_OPEN = """
import socket, sys
listener = socket.create_server(("127.0.0.1", int(sys.argv[2])), backlog=128)
socket.send_fds(socket.socket(fileno=int(sys.argv[1])), [b"."], [listener.fileno()])
"""
# The time limit for the proxy's start, which takes a minute on a busy, emulated processor; an exit
# is detected at once.
_READY_S = 180.0
_POLL_S = 0.02
_STOP_S = 10.0


def page_socket(port: int | None) -> socket.socket:
    """Open the page's listening socket in this process's namespace, not in the sandbox.

    Args:
        port: The port on 127.0.0.1; None for 10249 or, if that is in use, any free port.

    Raises:
        ListenError: The port isn't available.
    """
    try:
        return socket.create_server(("127.0.0.1", PAGE_PORT if port is None else port), backlog=128)
    except OSError as exc:
        if port is None:
            return page_socket(0)
        raise ListenError(
            f"cannot listen on 127.0.0.1:{port}: {os.strerror(exc.errno or 0)}",
            hint=shortage_hint(exc.errno)
            or "choose another with --port=N, or --port=0 for any free one",
        ) from exc


def page_socket_in(pod: Pod) -> socket.socket:
    """Open the page's listening socket in a pod, at the address where programs expect it.

    Raises:
        SandboxError: The socket can't be opened.
    """
    ours, theirs = socket.socketpair()
    with ours, theirs:
        command = [sys.executable, "-IS", "-c", _OPEN, str(theirs.fileno()), str(PAGE_PORT)]
        with pod.popen(command, pass_fds=[theirs.fileno()]):
            theirs.close()
            _, descriptors, _, _ = socket.recv_fds(ours, 1, 1)
    if not descriptors:
        raise SandboxError(f"cannot open port {PAGE_PORT} in {pod.name}")
    return socket.socket(fileno=descriptors[0])


def give_address(sandbox: Sandbox, pod: Pod, ip: str) -> None:
    """Assign an address to a pod, with a route on the node."""
    length, via = (128, pod.ip6) if ":" in ip else (32, pod.ip)
    pod.configure([f"addr add {ip}/{length} dev lo"])
    sandbox.node.configure([f"route add {ip}/{length} via {via}"])


@contextlib.contextmanager
def running_proxy(
    sandbox: Sandbox,
    page: socket.socket,
    manifests: Path,
    log: Path,
    *flags: str,
    health: socket.socket | None = None,
) -> Iterator[subprocess.Popen[str]]:
    """Run a proxy on a sandbox's node until SIGTERM at the end of the block.

    Args:
        page: The listening socket of the status page.
        log: The file for the proxy's log.
        flags: Further flags of ``run``.
        health: The listening socket for health checks; None if the proxy opens one on the node.
    """
    inherited = [page, *([health] if health else [])]
    for one in inherited:
        one.set_inheritable(True)
    healthz = [f"--healthz-bind-address=fd://{health.fileno()}"] if health else []
    with log.open("w") as stream:
        proxy = sandbox.node.popen(
            [
                sys.executable,
                "-m",
                "userspace_proxy",
                "run",
                f"--manifests={manifests}",
                "--steering=local",
                f"--hostname-override={NODE}",
                "--state-dir=",
                f"--bind-address={sandbox.node.ip}",
                f"--metrics-bind-address=fd://{page.fileno()}",
                "--v=3",
                # Each worker has its own round robin, so the order is visible only with one worker.
                "--workers=1",
                *healthz,
                *flags,
            ],
            stdin=subprocess.DEVNULL,
            stderr=stream,
            env={**without_proxies(), **own_namespace_environment(sandbox.node.pid)},
            pass_fds=[one.fileno() for one in inherited],
            # In its own session, the proxy doesn't get Ctrl-C; SIGTERM stops it.
            start_new_session=True,
        )
        try:
            yield proxy
        finally:
            proxy.terminate()
            try:
                proxy.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                proxy.kill()
                proxy.wait()


def wait_until_ready(
    port: int, proxy: subprocess.Popen[str], log: Path, is_over: Callable[[], bool]
) -> None:
    """Wait until the proxy serves the manifests.

    Args:
        port: The port of its status page or health checks.
        is_over: Ends the wait when it returns True.

    Raises:
        SandboxError: The proxy exited, or isn't ready in time.
    """
    # This process holds the page's socket, too, so requests aren't refused after the proxy's exit.
    page = AdminAddress("127.0.0.1", port, timeout_s=1.0)
    deadline = Clocks.monotonic() + _READY_S
    while not is_over():
        # The proxy answers 503, an error here, until it serves the manifests that it read.
        with contextlib.suppress(UserspaceProxyError):
            page.get("/healthz", accept="application/json")
            return
        why = error_line(log).removeprefix("error: ")
        if proxy.poll() is not None:
            raise SandboxError(f"cannot start the proxy: {why}")
        if Clocks.monotonic() > deadline:
            raise SandboxError(f"the proxy isn't ready after {_READY_S:.0f} s: {why}")
        with contextlib.suppress(subprocess.TimeoutExpired):
            proxy.wait(_POLL_S)


def error_line(log: Path) -> str:
    """Return a log's last error line, or else its last line; ``the log is empty`` without lines."""
    lines = log.read_text().strip().splitlines()
    is_error = re.compile(r"error: |\S+ ERROR ").match
    return next(filter(is_error, reversed(lines)), None) or last_line(log)


def last_line(log: Path) -> str:
    """Return a log's last line; ``the log is empty`` if there is none."""
    lines = log.read_text().strip().splitlines()
    return lines[-1] if lines else "the log is empty"
