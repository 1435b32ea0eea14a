"""Hands over a node from one control process to the next, while the workers serve.

    next process    asks over the lock's socket ▶ proves CAP_NET_ADMIN ▶ takes the lock
                    ▶ adopts the workers' sockets ▶ serves ▶ has the old workers drain
    this process    asked: becomes a program that only waits for its workers, and exits 0;
                    if that program can't start: answers with the cause, and keeps the node
                    SIGUSR1: exits 0 at once
                    killed: the same, so that a crash needs no code of its own

Rule 1: nothing is removed, so rules, routes and sockets are what the next process finds.
Rule 2: a process that is asked isn't replaced by an exit: in a container its exit would end the
workers, too. Executing another program releases what it held: all its descriptors close on exec.
Rule 3: root isn't enough to be handed the node: in a container of the host's network it may have no
capability, and mustn't end this process, or get clients' data, so it proves CAP_NET_ADMIN.

Source: docs/adr/0026.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import NoReturn

from ..errors import LockHeld, UserspaceProxyError
from ..kernel import net_admin_proof
from ..log_limit import LogLimit
from ..plane import Plane
from ..plane.adoption import Predecessors
from ..plane.rendezvous import connect_to_workers
from ..steering import proxy_label
from .lock import NodeLock, connect_to_holder
from .options import Options
from .sync import SyncLoop
from .tasks import pause

_log = logging.getLogger("userspace_proxy.agent")

_REQUEST, _PROVE, _PROVED = b"hand over\n", b"prove\n", b"proved\n"
_REQUEST_BYTES = 16
_NEEDS_PROOF = (
    "hands over only to a process that proves NET_ADMIN, which another version of userspace-proxy"
    " doesn't do: stop the running one, then start that version"
)
_NOT_PROVED = "hands over only to a process that has NET_ADMIN"
# Of the answer if it refuses; a process that hands over only ends the connection.
_REFUSAL_BYTES = 1000
# The holder's event loop may be in a large change.
_ANSWER_S = 10.0
# Between the end of that connection and of the lock.
_RELEASE_S = 1.0
_PAUSE_S = 0.005
# Processes that connect and request nothing are gone within milliseconds.
_MAX_ASKING = 16
# How long connections of a killed process's workers may last: as long as an idle one.
CRASH_DRAIN_S = 24 * 3600.0
_LOOK_S = 0.05
# For workers to reset their connections and exit.
END_S = 5.0

# The program that runs, even if an upgrade has removed or replaced its file.
_INTERPRETER = "/proc/self/exe"
# A start takes some 20 ms on an idle node.
_START_S = 5.0
# A second SIGTERM or SIGINT ends it, and leaves the workers to the next process.
_WAIT_FOR_WORKERS = """\
import os, signal, sys
os.closerange(3, os.sysconf("SC_OPEN_MAX"))
asked = []
def on_signal(number, frame):
    asked.append(number)
    if len(asked) > 1:
        os._exit(128 + number)
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, on_signal)
while True:
    try:
        os.wait()
    except ChildProcessError:
        sys.exit(0)
"""


def leave() -> NoReturn:
    """Exit, and leave the node to the next process."""
    _log.info("leaving the node to the next process, workers continue to serve")
    logging.shutdown()
    os._exit(0)


def wait_for_workers() -> NoReturn:
    """Become a program that exits when the workers have ended.

    Raises:
        UserspaceProxyError: That program can't start; this process continues as before.
    """
    command = [sys.executable, "-s", "-S", "-P", "-c"]
    # Without it the interpreter would look for its library from the path of its file, which may be
    # gone, or from a virtual environment that is.
    home = f"{sys.base_prefix}{os.pathsep}{sys.base_exec_prefix}"
    given = {name: text for name, text in os.environ.items() if not name.startswith("PYTHON")}
    environment = {**given, "PYTHONHOME": home}
    restore = contextlib.ExitStack()
    try:
        _check_start([*command, "import os, signal, sys"], environment)
        _log.info("handing over the node, waiting for connections to end")
        for handler in logging.getLogger().handlers:
            handler.flush()
        for number in (signal.SIGTERM, signal.SIGINT):
            # Until the program handles it.
            restore.callback(signal.signal, number, signal.signal(number, signal.SIG_IGN))
        os.execve(_INTERPRETER, [*command, _WAIT_FOR_WORKERS], environment)
    except (OSError, subprocess.SubprocessError) as exc:
        restore.close()
        raise UserspaceProxyError(
            f"cannot start the program that waits for workers: {exc}"
        ) from exc


def _check_start(command: list[str], environment: dict[str, str]) -> None:
    """Run a program as this process would execute it: its interpreter's library may be gone."""
    done = subprocess.run(
        command,
        executable=_INTERPRETER,
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


def ask_to_hand_over(proxy_name: str | None) -> int:
    """Have the running proxy of this name hand over the node.

    Returns:
        Its pid, 0 if it isn't visible; -1 if no proxy runs.

    Raises:
        LockHeld: It doesn't hand over; the message contains the cause.
    """
    found = connect_to_holder(proxy_name)
    if found is None:
        return -1
    sock, pid = found
    refusal = b""
    with sock:
        sock.settimeout(_ANSWER_S)
        try:
            refusal = _request(sock)
        except ConnectionError:
            pass
        except PermissionError as exc:
            raise LockHeld(
                f"cannot take over from userspace-proxy (pid {pid}): NET_ADMIN is missing",
                hint="run as root and grant NET_ADMIN",
            ) from exc
        except TimeoutError as exc:
            raise LockHeld(
                f"cannot take over: userspace-proxy (pid {pid}) does not answer",
                hint="see its log; kill it to take over its workers",
            ) from exc
    if refusal:
        raise LockHeld(
            f"cannot take over: userspace-proxy (pid {pid}) {refusal.decode(errors='replace')}",
            hint="end it with SIGUSR1, or kill it, to take over its workers",
        )
    until = time.monotonic() + _RELEASE_S
    while (still := connect_to_holder(proxy_name)) is not None:
        still[0].close()
        if time.monotonic() >= until:
            # It refused; its log contains the reason.
            break
        select.select([], [], [], _PAUSE_S)
    return pid


def _request(sock: socket.socket) -> bytes:
    """Request the node, and prove what the holder asks for; return its refusal, empty if none."""
    refusal = b""
    sock.sendall(_REQUEST)
    while len(refusal) < _REFUSAL_BYTES:
        text, descriptors, *_ = socket.recv_fds(sock, _REFUSAL_BYTES, 1)
        if descriptors:
            with socket.socket(fileno=descriptors[0]) as challenge:
                net_admin_proof.answer(challenge, sock)
            sock.sendall(_PROVED)
        elif text:
            refusal += text
        else:
            # It releases all its descriptors at about the same moment.
            break
    return refusal


class HandOverRequests:
    """Answers processes that connect to the lock's socket.

    Args:
        lock: It is held.
        hand_over: Called when a process with CAP_NET_ADMIN requests the node; it raises
            UserspaceProxyError if that isn't possible. None: requests are refused.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        lock: NodeLock,
        hand_over: Callable[[], object] | None,
    ) -> None:
        self._loop = loop
        self._lock = lock
        self._hand_over = hand_over
        self._asking: dict[socket.socket, socket.socket | None] = {}
        """Processes that connect, with the challenge of one that has requested the node."""
        self._log_limit = LogLimit()
        loop.add_reader(lock.fileno(), self._accept)

    def close(self) -> None:
        """Answer no more. Idempotent."""
        self._loop.remove_reader(self._lock.fileno())
        while self._asking:
            self._hang_up(next(iter(self._asking)))

    def _accept(self) -> None:
        for sock in self._lock.accept():
            sock.setblocking(False)
            self._asking[sock] = None
            self._loop.add_reader(sock.fileno(), self._read, sock)
            if len(self._asking) > _MAX_ASKING:
                self._hang_up(next(iter(self._asking)))

    def _read(self, sock: socket.socket) -> None:
        try:
            request = sock.recv(_REQUEST_BYTES)
        except OSError:
            request = b""
        challenge = self._asking[sock]
        if self._hand_over is None:
            self._hang_up(sock)
        elif request == _REQUEST and challenge is None:
            self._challenge(sock)
        elif request == _PROVED and challenge is not None:
            self._try(sock, challenge, self._hand_over)
        else:
            self._hang_up(sock)

    def _challenge(self, sock: socket.socket) -> None:
        """Have a process prove the capability."""
        if not net_admin_proof.can_prove(sock):
            self._refuse(sock, _NEEDS_PROOF)
            return
        try:
            challenge = self._asking[sock] = net_admin_proof.open_challenge()
            socket.send_fds(sock, [_PROVE], [challenge.fileno()])
        except OSError as exc:
            self._refuse(sock, f"cannot have it proved that a process has NET_ADMIN: {exc}")

    def _try(
        self, sock: socket.socket, challenge: socket.socket, hand_over: Callable[[], object]
    ) -> None:
        if not net_admin_proof.is_answered(challenge, sock):
            self._refuse(sock, _NOT_PROVED)
            return
        try:
            hand_over()
        except UserspaceProxyError as exc:
            self._refuse(sock, str(exc))
        else:
            self._hang_up(sock)

    def _refuse(self, sock: socket.socket, cause: str) -> None:
        if self._log_limit.take(self._loop.time()):
            _log.error("cannot hand over the node: %(cause)s", extra={"cause": cause})
        with contextlib.suppress(OSError):
            sock.send(cause.encode()[:_REFUSAL_BYTES])
        self._hang_up(sock)

    def _hang_up(self, sock: socket.socket) -> None:
        challenge = self._asking.pop(sock)
        if challenge is not None:
            challenge.close()
        self._loop.remove_reader(sock.fileno())
        sock.close()


def worker_label(options: Options) -> str | None:
    """Return the label by which the next process finds workers; None if they end with this one."""
    return None if options.hand_over is None else proxy_label(options.proxy_name or "")


async def adopt(label: str, stack: AsyncExitStack) -> Predecessors | None:
    """Adopt the sockets of the last control process's workers; None if there are none."""
    socks = connect_to_workers(label)
    if not socks:
        return None
    predecessors = Predecessors(asyncio.get_running_loop(), socks)
    # If this process fails to start, they continue to wait for one that does.
    stack.callback(predecessors.close)
    count = await predecessors.adopt()
    extra = {"workers": len(predecessors), "sockets": count}
    _log.info("adopted the sockets of workers that still serve", extra=extra)
    return predecessors


async def end_workers(label: str) -> None:
    """End the workers that a killed control process left."""
    until = time.monotonic() + END_S
    while socks := connect_to_workers(label):
        if time.monotonic() > until:
            _log.error("a worker does not end", extra={"count": len(socks)})
        else:
            # They obey a process that has been handed their sockets.
            predecessors = Predecessors(asyncio.get_running_loop(), socks)
            await predecessors.adopt()
            predecessors.end()
            await pause(_LOOK_S)
            continue
        for sock in socks:
            sock.close()
        return


async def relieve(
    predecessors: Predecessors, sync: SyncLoop, plane: Plane, options: Options
) -> None:
    """Have predecessors drain once all Services are served by this process's workers."""
    await sync.settled()
    while not plane.has_all_workers:
        await pause(_LOOK_S)
    # They have applied everything that was sent before when they answer.
    await plane.refresh()
    drain_s = options.predecessor_drain_s
    predecessors.drain(drain_s)
    _log.info("workers of the last process accept no more connections", extra={"drain_s": drain_s})
