"""A running backend (the program ``backends.py``), as its parent process sees it."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Protocol, Self

from ..errors import SandboxError
from .holder import read_line

# It starts in well under 0.1 s; this is for machines that are busy with other tests.
READY_TIMEOUT_S = 20.0
# One that said anything but "ready" is about to end.
END_TIMEOUT_S = 2.0

PROGRAM = Path(__file__).with_name("backends.py")


class Starter(Protocol):
    """Where a backend runs."""

    name: str

    def popen(
        self,
        argv: Sequence[str],
        *,
        stdin: int | None,
        stdout: int | None,
        stderr: int | None,
        start_new_session: bool,
    ) -> subprocess.Popen[str]:
        """Start a command there."""


class BackendProcess:
    """One backend process.

    Args:
        where: The namespace that it runs in.
        name: What it answers with.
        ports: Ports by kind; ``udp_echo`` stands for the flag ``--udp-echo``.

    Raises:
        SandboxError: It cannot listen there, or there is no such kind.
    """

    def __init__(self, where: Starter, name: str, ports: Mapping[str, int | Sequence[int]]) -> None:
        self.name = name
        self._process = where.popen(
            backend_command(name, ports),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        said = read_line(self._output().fileno(), READY_TIMEOUT_S)
        if said != "ready":
            self._give_up(where.name, said)
        # It has nothing more to say.
        self._output().close()

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def stop(self) -> None:
        """Kill it: from now on the kernel refuses its ports. Idempotent."""
        self._process.kill()
        self._process.wait()

    def pause(self) -> None:
        """Let it hang: the kernel still accepts connections for it, but nobody answers."""
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on after ``pause``."""
        self._process.send_signal(signal.SIGCONT)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _give_up(self, where: str, said: str) -> None:
        try:
            rest, _ = self._process.communicate(timeout=END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            rest, _ = self._process.communicate()
        words = f"{said}\n{rest}".strip().splitlines() or [f"silent for {READY_TIMEOUT_S:g} s"]
        raise SandboxError(f"cannot serve in {where}: {words[-1].removeprefix('error: ')}")

    def _output(self) -> IO[str]:
        output: IO[str] | None = self._process.stdout
        assert output is not None, "it was started with a pipe"
        return output


def backend_command(name: str, ports: Mapping[str, int | Sequence[int]]) -> tuple[str, ...]:
    """Return the command that serves these ports.

    It runs the program by path and without site packages: half the start time, and
    no need for the package to be importable there.
    """
    flags: list[str] = []
    for kind, numbers in ports.items():
        for port in [numbers] if isinstance(numbers, int) else numbers:
            flags += [f"--{kind.replace('_', '-')}", str(port)]
    return (sys.executable, "-IS", str(PROGRAM), "--name", name, *flags)
