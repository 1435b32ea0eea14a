"""One proxy of a name per node: a lock that a crash can't leave behind.

An abstract Unix socket belongs to a network namespace, as rules and routes do, and
vanishes with the process that bound it. Whoever finds it taken learns the owner's
process id from it (SO_PEERCRED).
"""

from __future__ import annotations

import contextlib
import errno
import socket
import struct
from pathlib import Path

from ..errors import LockHeld
from ..steering import proxy_label

_NAME = "\0userspace-proxy"
_CREDENTIALS = struct.Struct("3i")


class NodeLock:
    """The lock of one network namespace and proxy name.

    Args:
        proxy_name: The ``--service-proxy-name``: proxies of different names steer different
            Services, side by side. None or empty: the proxy without one.
    """

    def __init__(self, proxy_name: str | None = None) -> None:
        self._label = proxy_label(proxy_name or "")
        self._name = f"{_NAME}/{self._label}" if self._label else _NAME
        self._socket: socket.socket | None = None

    def take(self) -> None:
        """Take the lock, for as long as this process lives or until :meth:`release`.

        Raises:
            LockHeld: Another proxy has it; the message names its process.
        """
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            sock.bind(self._name)
            sock.listen()
        except OSError as exc:
            sock.close()
            if exc.errno != errno.EADDRINUSE:
                raise
            named = f" of the name {self._label}" if self._label else ""
            other = f"{named}{_owner(self._name)}"
            raise LockHeld(
                f"cannot start: another userspace-proxy{other} steers this node",
                hint="stop it first, or run with --steering=none",
            ) from exc
        self._socket = sock

    def fileno(self) -> int:
        """Return what becomes readable when somebody asks who has the lock.

        Call :meth:`answer` then: the kernel's queue is short, and who comes when it is full
        isn't told.
        """
        return -1 if self._socket is None else self._socket.fileno()

    def answer(self) -> None:
        """Let whoever asked go; the kernel has told them already."""
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.accept()[0].close()

    def release(self) -> None:
        """Give the lock back; idempotent."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def running_proxies() -> dict[str, int]:
    """Return which proxies have their lock in this network namespace: label → pid, 0 if unknown.

    Nobody's lock is taken for it.
    """
    known = _NAME.replace("\0", "@")
    proxies = {}
    for line in Path("/proc/thread-self/net/unix").read_text(encoding="utf-8").splitlines():
        name = line.rpartition(" ")[2]
        if name == known or name.startswith(f"{known}/"):
            proxies[name[len(known) + 1 :]] = _owner_pid(name.replace("@", "\0", 1))
    return proxies


def _owner(lock: str) -> str:
    """Return `` (pid 4711)``, or nothing where the owner can't be asked."""
    pid = _owner_pid(lock)
    return f" (pid {pid})" if pid else ""


def _owner_pid(lock: str) -> int:
    """Return the owner's pid, or 0 where it can't be asked."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.setblocking(False)
        try:
            sock.connect(lock)
            credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        except OSError:
            return 0
    pid: int = _CREDENTIALS.unpack(credentials)[0]
    return pid
