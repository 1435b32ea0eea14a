"""Starts and stops a backend (the program ``backends.py``) in a namespace."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Self

from userspace_proxy.errors import SandboxError

from .holder import read_line

# The time limit for a backend's start, which takes less than 0.1 s, or longer while other tests use
# the machine.
READY_TIMEOUT_S = 20.0
# The time limit for a backend's exit: a backend that prints anything but "ready" is about to exit.
END_TIMEOUT_S = 2.0

PROGRAM = Path(__file__).with_name("backends.py")


class BackendProcess:
    """One backend process.

    Args:
        popen: Starts a command in the namespace, like :meth:`.Namespace.popen`.
        where: The namespace's name, for errors.
        name: The text of its answers.
        ports: Ports by kind; the kind ``udp_echo`` becomes the flag ``--udp-echo``.

    Raises:
        SandboxError: The backend can't listen there, is too slow, or the kind doesn't exist.
    """

    def __init__(
        self,
        popen: Callable[..., subprocess.Popen[str]],
        where: str,
        name: str,
        ports: Mapping[str, int | Sequence[int]],
    ) -> None:
        self.name = name
        self._process = popen(
            backend_command(name, ports),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        said = read_line(self._output().fileno(), READY_TIMEOUT_S)
        if said != "ready":
            self._give_up(where, said)
        self._output().close()

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def stop(self) -> None:
        """Kill the process, so that the kernel refuses its clients; idempotent."""
        self._process.kill()
        self._process.wait()

    def pause(self) -> None:
        """Suspend the process: the kernel still accepts connections, but clients get no answer."""
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Undo ``pause``."""
        self._process.send_signal(signal.SIGCONT)

    def slow_down(self) -> None:
        """Delay each HTTP answer by ``backends.SLOW_S``; idempotent."""
        self._process.send_signal(signal.SIGUSR1)

    def speed_up(self) -> None:
        """Undo ``slow_down``; idempotent."""
        self._process.send_signal(signal.SIGUSR2)

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

    The command runs the program by path and without site packages, which halves the start time and
    doesn't require an importable package.
    """
    flags: list[str] = []
    for kind, numbers in ports.items():
        for port in [numbers] if isinstance(numbers, int) else numbers:
            flags += [f"--{kind.replace('_', '-')}", str(port)]
    return (sys.executable, "-IS", str(PROGRAM), "--name", name, *flags)
