"""Runs the process that keeps one network namespace alive and exits when its owner does.

    owner ──pipe──▶ holder (sh, then the reaper, which waits for the pipe's end) ──▶ namespace gone

Rule 1: the owner never writes to the pipe; EOF is the only message. The kernel closes the pipe
whenever the owner dies, so ``close`` and SIGKILL have the same effect.
Rule 2: no other process may hold the write end: it is closed on exec and after fork.
Rule 3: the holder leads its own session, so Ctrl-C doesn't end namespaces that the owner still
        needs.
Rule 4: the holder reads no file when it ends: interpreter and checkout may have been removed.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Self

from userspace_proxy.kernel.privileges import read_sysctls

from .privileges import explain_refusal, tool_path

# The time limits for the start and the end. Creating a namespace takes milliseconds; only a
# swapping machine approaches these limits.
START_TIMEOUT_S = 10.0
CLOSE_TIMEOUT_S = 10.0

REAPER = Path(__file__).with_name("reaper.py")

# Arguments: NAME=VALUE, where NAME is a path under /proc/sys.
SET_SYSCTLS = 'for s do echo "${s#*=}" >"/proc/sys/${s%%=*}" || exit; done'
# Arguments: the interpreter, the reaper, the owner's namespace, then sysctls. After "ready", the
# owner closes its end of stdout, which must not stop the holder.
HOLD = f"""\
python=$1 reaper=$2 spared=$3; shift 3
{SET_SYSCTLS}
ip link set lo up || exit
echo ready
exec >/dev/null 2>&1
exec "$python" -IS "$reaper" "$spared"
"""


def hold_command(
    *, rootless: bool, user_pid: int | None, sysctls: Sequence[str]
) -> tuple[str, ...]:
    """Return the command that becomes a new network namespace's holder.

    Args:
        rootless: Whether the namespace belongs to a user namespace of the sandbox.
        user_pid: The PID of a process in that user namespace; None to create a new one.
        sysctls: Settings, such as ``net/ipv4/ip_forward=1``, which are applied first.
    """
    spared = str(Path("/proc/self/ns/net").readlink())
    script = ("sh", "-c", HOLD, "holder", sys.executable, str(REAPER), spared, *sysctls)
    if not rootless:
        return ("unshare", "--net", "--", *script)
    if user_pid is None:
        return ("unshare", "--user", "--map-root-user", "--net", "--", *script)
    return (*enter_user(user_pid), "--", "unshare", "--net", "--", *script)


def enter_user(pid: int) -> tuple[str, ...]:
    """Return the command that enters a process's user namespace as the current user."""
    return ("nsenter", "--preserve-credentials", "--user", "--target", str(pid))


class Holder:
    """The holder of one network namespace.

    Args:
        rootless: As for :func:`hold_command`.
        user: A holder in the user namespace to use; None to create a new one.
        sysctls: As for :func:`hold_command`.

    Raises:
        SandboxError: The kernel refused; the hint contains the remedy.
    """

    def __init__(
        self, *, rootless: bool, user: Holder | None = None, sysctls: Sequence[str] = ()
    ) -> None:
        self.rootless = rootless
        self._process = subprocess.Popen(
            hold_command(rootless=rootless, user_pid=user.pid if user else None, sysctls=sysctls),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            cwd="/",
            env=os.environ | {"PATH": tool_path()},
            start_new_session=True,
        )
        _live.add(self)
        said = read_line(self._pipe("stdout").fileno(), START_TIMEOUT_S)
        if said != "ready":
            self._give_up()
        self._pipe("stdout").close()
        self._pipe("stderr").close()

    @property
    def pid(self) -> int:
        """The PID of a process in the namespace."""
        return self._process.pid

    def enter(self) -> tuple[str, ...]:
        """Return the command prefix that runs a program in the namespace."""
        if self.rootless:
            return (*enter_user(self.pid), "--net", "--")
        return ("nsenter", "--net", "--target", str(self.pid), "--")

    def release(self) -> None:
        """Begin to remove the namespace and kill its processes; idempotent."""
        self.drop_pipe()
        _live.discard(self)

    def wait(self) -> None:
        """Wait until a released namespace has no processes, for a limited time; idempotent."""
        try:
            self._process.wait(CLOSE_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def drop_pipe(self) -> None:
        """Close this process's end of the pipe."""
        self._pipe("stdin").close()

    def _pipe(self, name: str) -> IO[bytes]:
        pipe: IO[bytes] = getattr(self._process, name)
        return pipe

    def _give_up(self) -> None:
        self.release()
        self._process.kill()
        said = self._pipe("stderr").read().decode(errors="replace")
        self._pipe("stdout").close()
        self._pipe("stderr").close()
        self._process.wait()
        raise explain_refusal(said, rootless=self.rootless, sysctls=read_sysctls())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
        self.wait()


def read_line(descriptor: int, timeout_s: float) -> str:
    """Return the first line from a pipe, without its line feed.

    The line is incomplete if the pipe ends or is silent for ``timeout_s`` seconds.
    """
    line = b""
    readable = select.poll()
    readable.register(descriptor, select.POLLIN)
    while not line.endswith(b"\n") and readable.poll(timeout_s * 1000):
        byte = os.read(descriptor, 1)
        if not byte:
            break
        line += byte
    return line.decode(errors="replace").rstrip("\n")


_live: weakref.WeakSet[Holder] = weakref.WeakSet()


def _forget_in_child() -> None:
    """Close the pipes in a forked child; they would keep the namespaces alive."""
    for holder in tuple(_live):
        holder.drop_pipe()


os.register_at_fork(after_in_child=_forget_in_child)
