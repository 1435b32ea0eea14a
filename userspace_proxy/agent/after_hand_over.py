"""Ends a control process that handed over the node: at once, or after its workers have exited.

    asked      ▶ executes a small program ─┬─ the next process reports that it serves
                                           │      ▶ waits for the workers, exits 0
                                           └─ the next process ends before
                                                  ▶ executes its own command again

Rule 1: executing a program keeps the process alive: in a container, its exit would also kill the
workers.
Rule 2: a process that takes the node back starts as after a crash: the next process may have
changed rules and sockets, and the saved state is in a file.
Rule 3: the waiting program imports only the standard library: an upgrade may have removed
everything else.
Rule 4: a process that receives a signal to stop, before or while it waits, doesn't take the node
back.
Rule 5: a process whose parent is an init process, as in a container or a systemd unit, exits only
once it is stopped, no process has held the lock for 15 s, or 5 minutes have passed. Then the
kubelet or systemd starts it again, and it takes the node back. It waits in the same way if its
first process starts it again after a crash while another process has the node.

Source: docs/adr/0026, docs/adr/0050; Kubernetes' restartPolicy (a DaemonSet's is always Always).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import NoReturn

from ..child import RESTARTED, RUNNING_INTERPRETER, running_interpreter
from ..errors import LockHeld, UserspaceProxyError
from ..log_fields import FieldLogger
from .hand_over import OVER, SERVES
from .lock import NodeLock
from .rounds.tasks import first_of, pause

_log = FieldLogger("userspace_proxy.agent")

# The environment variable that marks a process taking the node back.
_MARK = "USERSPACE_PROXY_TAKES_BACK"
# The prefix that hides Python's environment variables from the waiting program.
_KEPT = "USERSPACE_PROXY_KEPT_"
# The time limit for a trial start, which takes about 20 ms on an idle node.
_START_S = 5.0
# The pause between two attempts to start. An attempt takes milliseconds if the lock is held, and
# workers wait for 10 minutes.
_AGAIN_S = 1.0
# The pause between two searches for the lock's holder; the number of consecutive searches without a
# holder after which the program exits (a killed holder is started again within 5 s); and the
# maximum number of searches, for 5 minutes, within which pods are deleted after an update.
_LOOK_S = 5.0
_FREE_LOOKS = 3
_LOOKS = 60
# The waiting program. A second SIGTERM or SIGINT terminates it, and leaves the workers to the next
# process; both signals are blocked until the program handles them. It passes descriptors inherited
# by this process on to the command.
_WAIT = f"""\
import os, signal, sys
link = int(sys.argv[1])
asked = ["before"] if sys.argv[2] else []
def on_signal(number, frame):
    asked.append(number)
    if len(asked) > 1:
        os._exit(128 + number)
stop = (signal.SIGTERM, signal.SIGINT)
for number in stop:
    signal.signal(number, on_signal)
signal.pthread_sigmask(signal.SIG_UNBLOCK, stop)
serves = link < 0
try:
    if not serves:
        os.write(link, {OVER!r})
        serves = os.read(link, 16) == {SERVES!r}
except OSError:
    pass
if not serves:
    # A signal that arrives from now on stays pending until the command is ready to handle it.
    signal.pthread_sigmask(signal.SIG_BLOCK, stop)
if not serves and not asked:
    os.close(link)
    environment = {{
        name.removeprefix({_KEPT!r}): text
        for name, text in os.environ.items()
        if not name.startswith("PYTHON")
    }}
    os.execve({RUNNING_INTERPRETER!r}, sys.argv[5:], {{**environment, {_MARK!r}: "1"}})
signal.pthread_sigmask(signal.SIG_UNBLOCK, stop)
os.closerange(3, os.sysconf("SC_OPEN_MAX"))
while True:
    try:
        os.wait()
    except ChildProcessError:
        break
signal.pthread_sigmask(signal.SIG_BLOCK, stop)
free = looks = 0
while os.getppid() <= 1 and not asked and free < {_FREE_LOOKS} and looks < {_LOOKS}:
    if signal.sigtimedwait(stop, float(sys.argv[4])):
        break
    looks += 1
    with open("/proc/net/unix") as table:
        found = (line.rstrip().partition(" @")[2] for line in table if " 00010000 " in line)
        free = 0 if sys.argv[3] in [name.partition("#")[0] for name in found] else free + 1
"""


def leave() -> NoReturn:
    """Exit without stopping the workers, which the next process adopts."""
    _log.info("exiting, leaving the workers running for the next process to adopt")
    logging.shutdown()
    os._exit(0)


def wait_for_workers(
    connection: socket.socket | None, lock: NodeLock, arrived: Sequence[int] = ()
) -> NoReturn:
    """Execute a program that exits when the workers have exited, or later (Rule 5).

    Args:
        connection: The connection to the next process. If that process exits before it reports that
            it serves, this process takes the node back. With None, it never takes the node back.
        lock: The lock that the next process holds.
        arrived: The stop signals that have arrived; after any of them, this process doesn't take
            the node back.

    Raises:
        UserspaceProxyError: The program can't start; this process continues as before.
    """
    interpreter, environment = running_interpreter()
    command = [*interpreter, "-c"]
    kept = {_KEPT + name: text for name, text in os.environ.items() if name.startswith("PYTHON")}
    environment |= kept
    link = -1 if connection is None else connection.fileno()
    restore = contextlib.ExitStack()
    try:
        # From here on, the new program handles signals. This process still handles them if the
        # program can't start, or the kernel has already delivered a signal to another thread.
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT))
        restore.callback(signal.pthread_sigmask, signal.SIG_SETMASK, blocked)
        _check_start([*command, "import os, signal, sys"], environment)
        if connection is None:
            _log.info("waiting for workers to exit")
        else:
            _log.info("handing over the node, waiting for connections to end")
        for handler in logging.getLogger().handlers:
            handler.flush()
        if connection is not None:
            connection.setblocking(True)
            connection.set_inheritable(True)
            restore.callback(connection.setblocking, False)
        was_told = "stop" if arrived else ""
        held = lock.name.removeprefix("\0")
        arguments = [str(link), was_told, held, str(_LOOK_S), sys.executable, *sys.orig_argv[1:]]
        os.execve(RUNNING_INTERPRETER, [*command, _WAIT, *arguments], environment)
    except (OSError, subprocess.SubprocessError) as exc:
        restore.close()
        raise UserspaceProxyError(
            f"cannot start the program that waits for workers: {exc}"
        ) from exc


def _check_start(command: list[str], environment: dict[str, str]) -> None:
    """Raise OSError or SubprocessError unless a program exits with 0 in the given environment."""
    done = subprocess.run(
        command,
        executable=RUNNING_INTERPRETER,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=_START_S,
        check=False,
    )
    if done.returncode:
        lines = done.stderr.decode(errors="replace").splitlines()
        causes = [line for line in lines if "Error: " in line]
        raise OSError(causes[-1] if causes else f"exit status {done.returncode}")


def takes_back() -> bool:
    """Return whether this process must take back the node that it has handed over.

    Only the first call returns True: it removes the mark from the environment, so that programs
    that this process starts don't take the node back.
    """
    return os.environ.pop(_MARK, "") != ""


def was_restarted() -> bool:
    """Return whether the first process has started this process again after a crash."""
    return RESTARTED in os.environ


def reap_children(loop: asyncio.AbstractEventLoop) -> None:
    """Reap this process's previous workers when they exit; call this before new workers start."""
    with contextlib.suppress(OSError):
        for pid in _child_pids():
            descriptor = os.pidfd_open(pid)
            loop.add_reader(descriptor, _reap, loop, descriptor, pid)


def has_children() -> bool:
    """Return whether this process has children (previous workers); False if unknown."""
    with contextlib.suppress(OSError):
        return bool(_child_pids())
    return False


def _child_pids() -> list[int]:
    """Return the PIDs of children that the main thread has started and that aren't reaped yet.

    Raises:
        OSError: The kernel can't list the children.
    """
    listed = Path(f"/proc/self/task/{os.getpid()}/children").read_text()
    return [int(pid) for pid in listed.split()]


async def start_while_workers_live(
    start: Callable[[], Awaitable[None]],
    stop: asyncio.Event,
    has_workers: Callable[[], bool] = has_children,
    pause_s: float = _AGAIN_S,
) -> bool:
    """Take the node back once no other process holds the lock, unless all workers exit first.

    If the lock's holder serves, it drains the workers. Any other holder exits soon.

    Args:
        start: Takes the node back; called again if it raises LockHeld.
        stop: Once set, ``start`` isn't called again.
        has_workers: Returns whether the previous workers are alive.
        pause_s: The pause before ``start`` is called again.

    Returns:
        True if the node was taken back; False if all workers have exited, or a stop is requested.
    """
    is_logged = False
    while not stop.is_set():
        try:
            await start()
            return True
        except LockHeld as exc:
            if not is_logged:
                _log.warning(
                    "cannot take the node back yet, retrying: %(cause)s", extra={"cause": str(exc)}
                )
            is_logged = True
        if not has_workers():
            break
        await first_of(pause(pause_s), stop.wait())
    return False


def _reap(loop: asyncio.AbstractEventLoop, descriptor: int, pid: int) -> None:
    loop.remove_reader(descriptor)
    os.close(descriptor)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
