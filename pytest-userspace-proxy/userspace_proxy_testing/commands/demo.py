"""``userspace-proxy demo``: a sandbox with backends, sample Services, the proxy and its page.

    here ── 127.0.0.1:10249 (page) ──┐ a socket opened here and handed in
    sandbox: client ── node-1 (userspace-proxy run --steering=local) ── web-1…3, dns-1…2, broken
             (traffic)

Everything but the page's socket and a folder is in namespaces, which end with this process.
"""

from __future__ import annotations

import contextlib
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from userspace_proxy.cli.command import DONE, Given
from userspace_proxy.clocks import Clocks
from userspace_proxy.config.flags import parsed
from userspace_proxy.config.kinds import integer
from userspace_proxy.errors import UserspaceProxyError

from ..sandbox import Pod, Sandbox, SandboxError
from .demo_broken import ELSEWHERE, RESETTING, SILENT, broken_manifests_for, broken_traffic
from .demo_commands import FOLDER_PREFIX, Commands, Tour, send_command
from .demo_manifests import DNS_PODS, WEB_PODS, manifests_for, sample_traffic
from .sandbox_proxy import (
    PAGE_PORT,
    error_line,
    give_address,
    page_socket,
    running_proxy,
    wait_until_ready,
)

_TRAFFIC = "userspace_proxy_testing.sandbox.traffic"


def demo(given: Given) -> int:
    """Run the demo until Ctrl-C, or send a command to the running demo.

    Args:
        given: ``arguments``: a command for the running demo; empty to start a demo. ``port``: the
            page's port on 127.0.0.1; by default 10249, or any free port if that is in use.

    Returns:
        The exit status.

    Raises:
        ConfigError: The port isn't a number from 0 to 65535.
        UserspaceProxyError: No demo is running, the demo rejects the command, or the proxy fails.
        SandboxError: Namespaces can't be created here, or the proxy can't be started.
        ListenError: The given port isn't available.
    """
    if given.arguments:
        print(send_command(given.arguments))
        return DONE
    began = Clocks.monotonic()
    text = given.values.get("port")
    port = None if text is None else parsed("port", text, integer(0, 65535).parse)
    with page_socket(port) as page, contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=FOLDER_PREFIX)))
        stop = stack.enter_context(contextlib.closing(_StopOnSignal()))
        try:
            _show(page, folder, stop, began, stack)
        except SandboxError:
            # Ctrl-C also ends the commands that set up the sandbox, so ignore their errors then.
            if not stop.is_set:
                raise
        print("\nending the demo …", flush=True)
    return DONE


def _show(
    page: socket.socket,
    folder: Path,
    stop: _StopOnSignal,
    began: float,
    stack: contextlib.ExitStack,
) -> None:
    """Run the demo and its commands until a signal or the proxy's end; raise if the proxy fails."""
    sandbox = stack.enter_context(Sandbox())
    tour = Tour()
    pods = _add_pods(sandbox, tour)
    client = sandbox.add_pod("client")
    manifests = _write_manifests(folder, {name: str(pod.ip) for name, pod in pods.items()})
    _write_scripts(folder, sandbox, client)
    _start_traffic(client)
    proxy = stack.enter_context(running_proxy(sandbox, page, manifests, folder / "proxy.log"))
    port = page.getsockname()[1]
    tour.server = f"127.0.0.1:{port}"
    wait_until_ready(port, proxy, folder / "proxy.log", lambda: stop.is_set)
    commands = stack.enter_context(contextlib.closing(Commands(folder, tour.run)))
    if not stop.is_set:
        print(_text(folder, port, Clocks.monotonic() - began), flush=True)
        commands.show_prompt()
    while not stop.is_set and proxy.poll() is None:
        commands.wait(stop.fileno())
        stop.clear()
    if not stop.is_set and proxy.returncode != 0:
        how = (
            f"was killed by signal {-proxy.returncode}"
            if proxy.returncode < 0
            else f"exited with status {proxy.returncode}"
        )
        raise UserspaceProxyError(
            f"the proxy {how}; its log says: {error_line(folder / 'proxy.log')}"
        )


class _StopOnSignal:
    """Makes its descriptor readable after SIGINT, SIGTERM, SIGHUP or the end of a child.

    Signals become bytes on a socket, so no signal is lost between a check and a poll.
    """

    def __init__(self) -> None:
        self.is_set = False
        self._woken, self._waker = socket.socketpair()
        self._woken.setblocking(False)
        self._waker.setblocking(False)
        signal.set_wakeup_fd(self._waker.fileno())
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._set)
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def close(self) -> None:
        """Close the descriptor; the signals' handlers stay installed. Idempotent."""
        signal.set_wakeup_fd(-1)
        self._woken.close()
        self._waker.close()

    def fileno(self) -> int:
        """Return the descriptor that becomes readable after a signal."""
        return self._woken.fileno()

    def clear(self) -> None:
        """Make the descriptor unreadable; call this before checking ``is_set`` and the children."""
        with contextlib.suppress(BlockingIOError):
            self._woken.recv(64)

    def _set(self, *_: object) -> None:
        self.is_set = True


def _add_pods(sandbox: Sandbox, tour: Tour) -> dict[str, Pod]:
    pods = {name: sandbox.add_pod(name) for name in (*WEB_PODS, *DNS_PODS, "broken")}
    for name in WEB_PODS:
        tour.serve(pods[name], tcp=8080)
    for name in DNS_PODS:
        tour.serve(pods[name], udp=5353)
    # This pod acts as a pod on node-2 that node-1 can reach.
    far = sandbox.add_pod("far")
    far.serve("web-4", tcp=8080)
    give_address(sandbox, far, ELSEWHERE)
    # Nothing listens on port REFUSED of this pod, as after a container's crash.
    pods["broken"].serve(reset=RESETTING, silent=SILENT)
    return pods


def _write_manifests(folder: Path, addresses: Mapping[str, str]) -> Path:
    """Write the manifests into a new folder; return the folder."""
    manifests = folder / "manifests"
    manifests.mkdir()
    (manifests / "shop.yaml").write_text(manifests_for(addresses))
    (manifests / "broken.yaml").write_text(broken_manifests_for(addresses))
    return manifests


def _write_scripts(folder: Path, sandbox: Sandbox, client: Pod) -> None:
    """Write scripts: ``pod`` and ``node`` (to run a command there), ``ask``, ``userspace-proxy``.

    The last one is needed because this program may not be in PATH.
    """
    for name, words in (
        ("pod", client.prefix),
        ("node", sandbox.node.prefix),
        ("ask", (*client.prefix, sys.executable, "-m", "userspace_proxy_testing.sandbox.client")),
        # TMPDIR is the folder in which this command finds the running demo.
        (
            "userspace-proxy",
            ("env", f"TMPDIR={folder.parent}", sys.executable, "-m", "userspace_proxy"),
        ),
    ):
        script = folder / name
        script.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
        script.chmod(0o755)


def _start_traffic(client: Pod) -> None:
    """Start background traffic, which ends with the client's namespace."""
    client.popen(
        [sys.executable, "-m", _TRAFFIC, *sample_traffic(), *broken_traffic()],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def _text(folder: Path, port: int, seconds: float) -> str:
    server = "" if port == PAGE_PORT else f" --server=127.0.0.1:{port}"
    return f"""
userspace-proxy demo: ready after {seconds:.1f} s; Ctrl-C ends it and leaves nothing behind.

  status page         http://127.0.0.1:{port}/
  round robin         {folder}/ask http http://10.96.0.10/ --count 6
  ClientIP affinity   {folder}/ask http http://10.96.0.20/ --count 6
  UDP                 {folder}/ask udp 10.96.0.53:53 hello --count 4    (one socket, one pod)
  a dead endpoint     {folder}/ask http http://10.96.0.30/ --count 6    (no request fails)

  break a pod         {folder}/userspace-proxy demo break web-2    (or here: break web-2)
  find the reason     {folder}/userspace-proxy explain broken/port-name{server}    (or here)
  Services to fix     {folder}/manifests/broken.yaml: twelve with one mistake each
  change something    edit {folder}/manifests/shop.yaml: the proxy follows at once
  shell in the pod    {folder}/pod sh
  shell on the node   {folder}/node sh
  the proxy's log     tail -f {folder}/proxy.log
"""
