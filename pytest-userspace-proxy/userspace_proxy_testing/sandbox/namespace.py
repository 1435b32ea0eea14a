"""One network namespace and the programs in it."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Self

from userspace_proxy.errors import SandboxError

from .backend_process import BackendProcess
from .environment import without_proxies
from .holder import SET_SYSCTLS, Holder
from .privileges import tool_path

RUN_TIMEOUT_S = 30.0

# Standard input: lines for ip. Arguments: sysctls.
CONFIGURE = f"ip -batch - || exit; {SET_SYSCTLS}"
# Arguments: file, target, file, target, …, "--", command.
MOUNT_FILES = (
    'while [ "$1" != -- ]; do mount --bind "$1" "$2" || exit; shift 2; done; shift; exec "$@"'
)

Pipe = int | IO[str] | IO[bytes] | None


class Namespace:
    """One network namespace with a name, kept until ``close``.

    All its processes are killed when it closes, or when the process that created it dies.

    Args:
        name: The name in messages and in backends' answers.
        holder: Keeps the namespace alive; closed together with it.
    """

    def __init__(self, name: str, holder: Holder) -> None:
        self.name = name
        self.closed = False
        self._holder = holder
        self._started: list[subprocess.Popen[str]] = []

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}{', closed' if self.closed else ''}>"

    @property
    def pid(self) -> int:
        """The PID of a process in the namespace, for ``nsenter -t`` and ``ip link set … netns``."""
        return self._holder.pid

    @property
    def prefix(self) -> tuple[str, ...]:
        """The prefix that runs a command in the namespace, in the same directory as the same user.

        The prefix execs the command, so the process keeps its PID and receives signals.
        """
        return self._holder.enter()

    def prefix_with_files(self, files: Mapping[str, Path]) -> tuple[str, ...]:
        """Return a prefix like ``prefix`` for a command that sees substitutes of some files.

        Args:
            files: Substitutes by path, as ``{"/etc/resolv.conf": mine}``; both must exist.
        """
        pairs = [arg for target, file in files.items() for arg in (str(file), target)]
        return (*self.prefix, "unshare", "--mount", "sh", "-c", MOUNT_FILES, "sh", *pairs, "--")

    def run(
        self,
        argv: Sequence[str],
        *,
        input: str | None = None,  # noqa: A002 - as in subprocess.run
        check: bool = True,
        timeout: float = RUN_TIMEOUT_S,
        env: Mapping[str, str] | None = None,
        files: Mapping[str, Path] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the namespace; return its output and status, like ``subprocess.run``.

        Args:
            env: The environment; None for this process's, without variables for HTTP proxies.
            files: As for :meth:`prefix_with_files`.

        Raises:
            SandboxError: The command took too long, or with ``check`` failed (the message contains
                its last output line).
            TypeError: ``argv`` is a string.
        """
        if isinstance(argv, str):
            raise TypeError(f"cannot run {argv!r}: a command is a list: {argv.split()!r}")
        try:
            done = subprocess.run(
                [*(self.prefix_with_files(files) if files else self.prefix), *argv],
                input=input,
                stdin=subprocess.DEVNULL if input is None else None,
                capture_output=True,
                timeout=timeout,
                env=without_proxies() if env is None else env,
                encoding="utf-8",
                errors="surrogateescape",
                check=False,
            )
        except subprocess.TimeoutExpired as exc:
            raise SandboxError(
                f"cannot run `{shlex.join(argv)}` in {self.name}: still running after {timeout:g} s"
            ) from exc
        if check and done.returncode != 0:
            said = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
            cause = f"{said[0]}; " if said else ""
            raise SandboxError(
                f"cannot run `{shlex.join(argv)}` in {self.name}: {cause}status {done.returncode}"
            )
        return done

    def popen(
        self,
        argv: Sequence[str],
        *,
        stdin: Pipe = None,
        stdout: Pipe = None,
        stderr: Pipe = None,
        cwd: str | Path | None = None,
        env: Mapping[str, str] | None = None,
        pass_fds: Sequence[int] = (),
        start_new_session: bool = False,
    ) -> subprocess.Popen[str]:
        """Start a command in the namespace, like ``subprocess.Popen`` with text streams.

        The caller closes the pipes; the process is killed when the namespace closes.
        """
        process = subprocess.Popen(
            [*self.prefix, *argv],
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            cwd=cwd,
            env=without_proxies() if env is None else env,
            pass_fds=pass_fds,
            start_new_session=start_new_session,
            encoding="utf-8",
            errors="surrogateescape",
        )
        self._started = [p for p in self._started if p.poll() is None]
        self._started.append(process)
        return process

    def serve(self, name: str | None = None, **ports: int | Sequence[int]) -> BackendProcess:
        """Start a backend in the namespace; it listens on return.

        Args:
            name: The text of its answers; None for the namespace's name.
            ports: Ports by kind, as in ``backends.py``: ``tcp=8080, udp_echo=[7, 8]``.

        Raises:
            SandboxError: The backend can't listen there, is too slow, or the kind doesn't exist.
        """
        return BackendProcess(self.popen, self.name, name or self.name, ports)

    def configure(self, lines: Iterable[str] = (), sysctls: Sequence[str] = ()) -> None:
        """Change links, addresses and routes, then sysctls.

        Args:
            lines: Commands of ``ip`` without the word ``ip``.
            sysctls: Settings, such as ``net/ipv4/ip_forward=1``.

        Raises:
            SandboxError: The kernel refused a change, so the remaining changes weren't applied,
                or the changes took too long.
        """
        text = list(lines)
        done = self.run(
            ["sh", "-c", CONFIGURE, "sh", *sysctls],
            input="".join(f"{line}\n" for line in text),
            env=os.environ | {"PATH": tool_path()},
            check=False,
        )
        if done.returncode != 0:
            raise explain_batch(self.name, text, done.stderr)

    def close(self) -> None:
        """Kill all processes in the namespace, and remove the namespace; idempotent."""
        close_all([self])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def release(self) -> None:
        """Begin to close; ``wait`` completes the close. Idempotent."""
        self.closed = True
        for process in self._started:
            if process.poll() is None:
                process.kill()
        self._holder.release()

    def wait(self) -> None:
        """Wait until the namespace has no processes; idempotent."""
        self._holder.wait()
        for process in self._started:
            process.wait()
        self._started.clear()


def close_all(namespaces: Sequence[Namespace]) -> None:
    """Close namespaces concurrently, which is faster than one by one."""
    for namespace in namespaces:
        namespace.release()
    for namespace in namespaces:
        namespace.wait()


def explain_batch(name: str, lines: Sequence[str], said: str) -> SandboxError:
    """Return the error for the output of a failed ``ip -batch -``."""
    complaints = [line for line in said.strip().splitlines() if line]
    at = complaints[-1].rpartition("Command failed -:")[2] if complaints else ""
    cause = complaints[0].removeprefix("Error: ") if complaints else "no reason given"
    if not at.isdecimal():
        return SandboxError(f"cannot configure {name}: {cause}")
    lacks_module = "nknown device type" in cause or "not supported" in cause
    return SandboxError(
        f"cannot configure {name}: ip {lines[int(at) - 1]}: {cause}",
        hint="as root: modprobe -a veth bridge" if lacks_module else "",
    )
