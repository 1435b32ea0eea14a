"""The lock that every writer of legacy tables takes: ``/run/xtables.lock``.

Source: iptables/xshared.c, xtables_lock(): flock(2) on that file, or on the one that
XTABLES_LOCKFILE names, which an unprivileged user needs.
"""

from __future__ import annotations

import fcntl
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from ...errors import SteeringError

DEFAULT_PATH = "/run/xtables.lock"
# kube-proxy waits 5 s too (iptables -w 5).
WAIT_S = 5.0


@contextmanager
def xtables_lock(wait_s: float = WAIT_S) -> Iterator[int]:
    """Hold the lock; in the main thread only, because the deadline is a timer's signal.

    Yields:
        Its descriptor: a child that inherits it holds the lock, too, until it ends.

    Raises:
        SteeringError: It can't be opened, or somebody held it for ``wait_s`` seconds.
    """
    path = Path(os.environ.get("XTABLES_LOCKFILE") or DEFAULT_PATH)
    try:
        file = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as exc:
        raise SteeringError(
            f"cannot open {path}: {exc.strerror}",
            hint="set XTABLES_LOCKFILE to a file that you may write",
        ) from exc
    try:
        _lock_within(file, path, wait_s)
        yield file
    finally:
        os.close(file)


def _lock_within(file: int, path: Path, wait_s: float) -> None:
    def expire(_signal: int, _frame: FrameType | None) -> None:
        raise TimeoutError

    previous = signal.signal(signal.SIGALRM, expire)
    try:
        signal.setitimer(signal.ITIMER_REAL, wait_s)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    except TimeoutError:
        raise SteeringError(
            f"cannot lock {path} within {wait_s:g} s: held by {_holder(file)}",
            hint="it is taken up again by the next sync",
        ) from None
    finally:
        signal.signal(signal.SIGALRM, previous)


def _holder(file: int) -> str:
    """Return who holds the lock of an open file: ``iptables-save (pid 4711)``."""
    try:
        inode = os.fstat(file).st_ino
        for line in Path("/proc/locks").read_text(encoding="ascii").splitlines():
            # 1: FLOCK  ADVISORY  WRITE 4711 00:19:1234 0 EOF; waiting ones have an arrow.
            fields = line.split()
            if fields[1] == "FLOCK" and int(fields[5].rpartition(":")[2]) == inode:
                return _named(int(fields[4]))
    except (OSError, ValueError, IndexError):
        pass
    return "another process"


def _named(pid: int) -> str:
    try:
        name = Path(f"/proc/{pid}/comm").read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return f"pid {pid}"
    return f"{name} (pid {pid})"
