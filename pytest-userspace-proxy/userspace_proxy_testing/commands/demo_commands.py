"""Runs commands for a running demo, such as ``break web-2``, from its terminal or another process.

    its terminal ──a line──▶ Commands ◀──a connection── userspace-proxy demo break web-2
                                │
                                ▼
                              Tour: stop, delay, silence and heal backends; ask the proxy

Rule 1: without a terminal, standard input isn't read.
Rule 2: every demo of this user on this machine has a Unix socket in its folder; the newest demo
that accepts a connection executes the command.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from userspace_proxy.cli.terminal import COLUMNS_SHOWN
from userspace_proxy.errors import UserspaceProxyError
from userspace_proxy.model.similar import did_you_mean

from ..sandbox import BackendProcess, Pod

FOLDER_PREFIX = "userspace-proxy-demo-"
_SOCKET = "commands"
_LINE_BYTES = 1024
_TIMEOUT_S = 30.0
# The timeout for a client, which is expected to send its line at once.
_CLIENT_S = 2.0
# The interval at which a demo in the background checks whether it may read commands again.
_BACKGROUND_MS = 1000
_PROMPT = "demo> "
_DONE, _FAILED = "+", "-"
_COMMANDS = {
    "break": "POD: nothing listens there any more",
    "silence": "POD: no packet leaves it any more",
    "slow": "POD: each answer takes 0.7 s",
    "heal": "[POD]: undo what was done to one pod, or to all pods",
    "status": "one line per Service port",
    "explain": "NAMESPACE/NAME: follow the path of connections to a Service",
    "help": "list the commands",
}
_QUESTIONS = ("status", "explain")


@dataclass
class _Backend:
    pod: Pod
    ports: Mapping[str, int]
    process: BackendProcess
    is_stopped: bool = False


class Tour:
    """Breaks and heals the demo's pods, within the sandbox only, and queries the proxy."""

    def __init__(self) -> None:
        self.server = ""
        """The page's address."""
        self._backends: dict[str, _Backend] = {}

    def serve(self, pod: Pod, **ports: int) -> None:
        """Start a pod's backend; the demo's commands can break it later."""
        self._backends[pod.name] = _Backend(pod, ports, pod.serve(None, **ports))

    def run(self, line: str) -> str:
        """Execute one command; return the text to print.

        Raises:
            UserspaceProxyError: There is no such command or pod, or not exactly one pod is named.
        """
        name, *arguments = line.split() or ["help"]
        if name not in _COMMANDS:
            hint = did_you_mean(name, _COMMANDS) or f"commands: {', '.join(_COMMANDS)}"
            raise UserspaceProxyError(f"unknown command {name!r}", hint=hint)
        if name == "help":
            return "\n".join(f"  {name:8} {text}" for name, text in _COMMANDS.items())
        if name in _QUESTIONS:
            return self._ask(name, *arguments)
        if name == "heal" and not arguments:
            for backend in self._backends.values():
                _heal(backend)
            return "all pods serve again"
        if len(arguments) != 1:
            raise UserspaceProxyError(f"{name} takes the name of one pod", hint=self._pods())
        pod = arguments[0]
        if pod not in self._backends:
            hint = did_you_mean(pod, self._backends) or self._pods()
            raise UserspaceProxyError(f"there is no pod {pod!r}", hint=hint)
        return _ACTIONS[name](self._backends[pod])

    def _ask(self, *words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "userspace_proxy", *words, f"--server={self.server}"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=_environment(),
            check=False,
        )
        return done.stdout.rstrip()

    def _pods(self) -> str:
        return f"pods: {', '.join(self._backends)}"


def _environment() -> dict[str, str]:
    """Return the environment for a command whose output is shown on this terminal, if any."""
    if not sys.stdout.isatty():
        return dict(os.environ)
    return {**os.environ, COLUMNS_SHOWN: str(shutil.get_terminal_size().columns)}


def _break(backend: _Backend) -> str:
    backend.process.stop()
    backend.is_stopped = True
    return f"{backend.pod.name} refuses connections; new ones go to other pods, and none fails"


def _silence(backend: _Backend) -> str:
    backend.pod.drop_traffic()
    return (
        f"{backend.pod.name} is silent; a client that is sent there waits 1 s for another pod, "
        "then it is ejected"
    )


def _slow(backend: _Backend) -> str:
    if backend.is_stopped:
        _heal(backend)
    backend.process.slow_down()
    return f"{backend.pod.name} is slow; shop/api, with least connections, sends it fewer"


def _heal(backend: _Backend) -> str:
    backend.pod.pass_traffic()
    if backend.is_stopped:
        backend.process = backend.pod.serve(None, **backend.ports)
        backend.is_stopped = False
    backend.process.speed_up()
    return f"{backend.pod.name} serves again"


_ACTIONS: dict[str, Callable[[_Backend], str]] = {
    "break": _break,
    "silence": _silence,
    "slow": _slow,
    "heal": _heal,
}


class Commands:
    """Reads commands from the terminal, if any, and from the socket in the folder.

    Args:
        folder: The demo's folder, which only this user can open.
        run: Executes one line; returns the text to print.
    """

    def __init__(self, folder: Path, run: Callable[[str], str]) -> None:
        self._run = run
        self._terminal = sys.stdin.fileno() if sys.stdin.isatty() else None
        self._listener = socket.socket(socket.AF_UNIX)
        with _short_path(folder / _SOCKET) as path:
            self._listener.bind(path)
        self._listener.listen()
        self._listener.settimeout(_TIMEOUT_S)

    def wait(self, *others: int) -> None:
        """Wait for a command and execute it; return without one if another descriptor is readable.

        In the background of a terminal, wait for at most _BACKGROUND_MS.
        """
        poll = select.poll()
        for descriptor in (self._listener.fileno(), *others):
            poll.register(descriptor, select.POLLIN)
        timeout_ms = None
        if self._terminal is not None:
            if self._is_in_foreground():
                poll.register(self._terminal, select.POLLIN)
            else:
                timeout_ms = _BACKGROUND_MS
        for descriptor, _ in poll.poll(timeout_ms):
            if descriptor == self._listener.fileno():
                self._answer()
            elif descriptor == self._terminal and self._is_in_foreground():
                self._read_terminal(descriptor)

    def show_prompt(self) -> None:
        """Show a prompt on the terminal, if any."""
        if self._terminal is not None:
            print(_PROMPT, end="", flush=True)

    def close(self) -> None:
        """Close the socket."""
        self._listener.close()

    def _is_in_foreground(self) -> bool:
        # Read only in the foreground: the kernel stops a background process that reads from its
        # terminal.
        return self._terminal is not None and os.tcgetpgrp(self._terminal) == os.getpgrp()

    def _read_terminal(self, terminal: int) -> None:
        # In canonical mode, a terminal returns whole lines, so one read is one command.
        line = os.read(terminal, _LINE_BYTES).decode(errors="replace")
        if not line:
            self._terminal = None
            return
        if line.strip():
            print(self._outcome(line)[1], flush=True)
        self.show_prompt()

    def _answer(self) -> None:
        # A client that has left or is silent affects only its own command.
        with contextlib.suppress(OSError):
            connection, _ = self._listener.accept()
            with connection:
                connection.settimeout(_CLIENT_S)
                line = connection.recv(_LINE_BYTES).decode(errors="replace")
                mark, text = self._outcome(line)
                connection.sendall(f"{mark}{text}".encode())

    def _outcome(self, line: str) -> tuple[str, str]:
        try:
            return _DONE, self._run(line)
        except UserspaceProxyError as exc:
            return _FAILED, f"error: {exc}"


def send_command(words: Sequence[str]) -> str:
    """Send a command to the newest running demo; return its answer.

    Raises:
        UserspaceProxyError: No demo is running, or the demo rejects the command.
    """
    for folder in _newest_first():
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(_TIMEOUT_S)
            try:
                with _short_path(folder / _SOCKET) as path:
                    connection.connect(path)
                connection.sendall(" ".join(words).encode())
                with connection.makefile("rb") as stream:
                    answer = stream.read().decode()
            except OSError:
                continue
        if answer.startswith(_FAILED):
            raise UserspaceProxyError(answer[1:].removeprefix("error: "))
        return answer[1:]
    raise UserspaceProxyError("no demo is running", hint="start one: userspace-proxy demo")


def _newest_first() -> list[Path]:
    def started(folder: Path) -> float:
        try:
            return folder.stat().st_ctime
        except OSError:
            return 0.0

    found = Path(tempfile.gettempdir()).glob(f"{FOLDER_PREFIX}*")
    return sorted(found, key=started, reverse=True)


@contextlib.contextmanager
def _short_path(path: Path) -> Iterator[str]:
    """Yield a short alias of a path, because the path of a Unix socket is limited to 107 bytes."""
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
