"""Network namespaces that threads of the test process enter.

A socket belongs to the namespace in which it was created, so a test opens it inside ``with net:``
and uses it anywhere. Every wait has a deadline of :data:`DEADLINE_S`.

``sandbox.Namespace`` is for processes: a process keeps it alive, and closing it kills all of its
processes. Here the code under test runs in this process, and a namespace without a process is
created in a fifth of the time (16 ms, mostly for ``ip link``).
"""

from __future__ import annotations

import ctypes
import os
import socket
import subprocess
import threading

from tests.shell import script

CLONE_NEWNET = 0x40000000
DEADLINE_S = 120.0
_libc = ctypes.CDLL(None, use_errno=True)


class Net:
    """One network namespace with lo up; ``with net:`` moves the calling thread into it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._outside: list[int] = []
        made: list[int | OSError] = []

        def make() -> None:
            if _libc.unshare(CLONE_NEWNET) != 0:
                code = ctypes.get_errno()
                made.append(OSError(code, os.strerror(code)))
            else:
                made.append(os.open("/proc/thread-self/ns/net", os.O_RDONLY))

        thread = threading.Thread(target=make)
        thread.start()
        thread.join()
        if isinstance(made[0], OSError):
            raise made[0]
        self.fd = made[0]
        self.run("ip link set lo up")

    def run(self, command: str) -> str:
        """Run a shell command in the namespace; return its output."""
        done = subprocess.run(
            ["nsenter", f"--net=/proc/self/fd/{self.fd}", *script(command)],
            pass_fds=[self.fd],
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
        )
        assert done.returncode == 0, f"{self.name}: {command}: {done.stderr}"
        return done.stdout

    def __enter__(self) -> Net:
        self._outside.append(os.open("/proc/thread-self/ns/net", os.O_RDONLY))
        self._set(self.fd)
        return self

    def __exit__(self, *_exc: object) -> None:
        outside = self._outside.pop()
        self._set(outside)
        os.close(outside)

    def tcp(self, family: int = socket.AF_INET) -> socket.socket:
        return self._socket(family, socket.SOCK_STREAM)

    def udp(self, family: int = socket.AF_INET) -> socket.socket:
        return self._socket(family, socket.SOCK_DGRAM)

    def close(self) -> None:
        """Release the namespace, which is removed with its last socket."""
        os.close(self.fd)

    def _socket(self, family: int, kind: int) -> socket.socket:
        with self:
            made = socket.socket(family, kind)
        made.settimeout(DEADLINE_S)
        return made

    @staticmethod
    def _set(fd: int) -> None:
        if _libc.setns(fd, CLONE_NEWNET) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
