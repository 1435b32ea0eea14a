"""Hands over a node from one control process to the next, while the workers serve.

    next process    asks over the lock's socket ▶ proves CAP_NET_ADMIN ▶ takes the lock
                    ▶ adopts the workers' sockets ▶ serves ▶ reports that over the same connection
                    ▶ drains the old workers
    this process    asked: executes a program that waits for that report, then for its workers, and
                    exits 0; without the report it takes the node back (``agent.after_hand_over``);
                    if the program can't start: answers with the cause, and keeps the node
                    SIGUSR1: exits 0 at once
                    killed: the next process adopts the workers in the same way

Rule 1: nothing is removed, so the next process finds all rules, routes and sockets.
Rule 2: the next process asks only after all checks that don't require the node have passed.
Rule 3: a process that hands over doesn't exit: in a container its exit would also kill the workers.
Executing another program closes all its descriptors, which are close-on-exec.
Rule 4: being root doesn't suffice to take the node: in a container in the host's network, root may
have no capability, and mustn't terminate this process or see clients' data. The next process must
prove CAP_NET_ADMIN; so must the holder, and the process that opened the workers' sockets.

Source: docs/adr/0026, 0050, 0053.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from collections.abc import Callable
from contextlib import AsyncExitStack

from ..clocks import Clocks
from ..errors import LockHeld, UserspaceProxyError
from ..kernel import name_proofs
from ..kernel.net_admin_proof import Prover
from ..log_fields import FieldLogger
from ..log_limit import LogLimit
from ..plane import Plane
from ..plane.adoption import PreviousWorkers
from ..plane.authentication import Asker, Reception, frame
from ..plane.messages import HandOverRefused, NodeHandedOver, Prove
from ..plane.worker_sockets import connect_to_workers
from ..steering import proxy_label
from .lock import NodeLock, connect_to_holder
from .rounds.changes import Progress
from .rounds.component import Component
from .rounds.options import Options
from .rounds.tasks import Supervisor, pause

_log = FieldLogger("userspace_proxy.agent")

HandOverTo = Callable[[socket.socket], object]

_FromHolder = Prove | HandOverRefused | NodeHandedOver
OVER, SERVES = frame(NodeHandedOver()), b"serves\n"
_PROOF_HINTS = {
    errno.EPERM: "run as root and grant NET_ADMIN",
    # Another process has bound the random port ID, probably along with very many others.
    errno.EADDRINUSE: "try again: another process uses the netlink port ID chosen at random",
}
# The maximum wait for the holder's answer: its event loop may be applying a large change, or many
# processes may be sending requests.
_ANSWER_S = 10.0
_PAUSE_S = 0.005
# The drain time for workers of a killed process: as long as connections may be idle.
CRASH_DRAIN_S = 24 * 3600.0
_LOOK_S = 0.05
# The maximum time for workers to reset their connections and exit.
END_S = 5.0


class TakenOver:
    """A node handed over by another process, which waits until this one serves.

    Args:
        pid: The other process's ID, 0 if it isn't visible.
        connection: The connection on which the other process waits.
    """

    def __init__(self, pid: int, connection: socket.socket) -> None:
        self.pid = pid
        self._connection: socket.socket | None = connection

    def report_serving(self) -> None:
        """Report that this process serves, so the other won't take the node back. Idempotent."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with connection, contextlib.suppress(OSError):
                connection.sendall(SERVES)

    def is_awaited(self) -> bool:
        """Return whether the other process would take the node back if this process exited."""
        if self._connection is None:
            return False
        try:
            return self._connection.recv(1, socket.MSG_PEEK) != b""
        except BlockingIOError:
            return True
        except OSError:
            return False


async def ask_to_hand_over(proxy_name: str | None) -> TakenOver | None:
    """Ask the running proxy of this name to hand over the node; None if no proxy is running.

    Raises:
        LockHeld: The proxy refuses or doesn't answer, or this process can't prove CAP_NET_ADMIN.
    """
    until = Clocks.monotonic() + _ANSWER_S
    while found := connect_to_holder(proxy_name):
        sock, pid = found
        proxy = f"userspace-proxy (pid {pid})" if pid else "userspace-proxy"
        if not name_proofs.can_prove():
            # Don't send the request: a proxy would refuse it, and any process may be the holder.
            sock.close()
            raise _cannot_prove(proxy, PermissionError(errno.EPERM, os.strerror(errno.EPERM)))
        try:
            answer = await _request(sock, until - Clocks.monotonic())
        except TimeoutError as exc:
            raise LockHeld(
                f"cannot take over: {proxy} does not answer",
                hint="see its log; kill it to take over its workers",
            ) from exc
        except OSError as exc:
            raise _cannot_prove(proxy, exc) from exc
        if isinstance(answer, socket.socket):
            return TakenOver(pid, answer)
        if answer:
            raise LockHeld(
                f"cannot take over from {proxy}: {answer}",
                hint="end it with SIGUSR1, or kill it, to take over its workers",
            )
        # Connect again: others filled the holder's queue before this process answered.
        await pause(_PAUSE_S)
    return None


def _cannot_prove(proxy: str, cause: OSError) -> LockHeld:
    return LockHeld(
        f"cannot prove CAP_NET_ADMIN to {proxy}: {cause.strerror}",
        hint=_PROOF_HINTS.get(cause.errno or 0, "see its log"),
    )


async def _request(sock: Prover, within_s: float) -> socket.socket | str:
    """Request the node over a connection, answer the holder's challenge, and close the connection.

    Returns:
        Another descriptor of the connection once the node is handed over, or the holder's refusal;
        empty if the holder disconnected in favour of another process.

    Raises:
        TimeoutError: The holder doesn't answer in time.
        OSError: The proof fails.
    """
    answers = asyncio.Queue[socket.socket | str | OSError]()

    def receive(message: _FromHolder, passed: list[socket.socket]) -> None:
        for each in passed:
            each.close()
        if isinstance(message, NodeHandedOver):
            answers.put_nowait(socket.socket(fileno=os.dup(sock.fileno())))
        elif isinstance(message, HandOverRefused):
            answers.put_nowait(message.cause)

    asker = Asker[_FromHolder](
        asyncio.get_running_loop(),
        sock,
        reads=_FromHolder,
        receive=receive,
        lost=lambda malformed: answers.put_nowait(
            malformed and f"sent a malformed message: {malformed}"
        ),
        unproved=answers.put_nowait,
    )
    with contextlib.closing(asker):
        answer = await asyncio.wait_for(answers.get(), within_s)
    if isinstance(answer, OSError):
        raise answer
    return answer


def answer_requests(
    loop: asyncio.AbstractEventLoop, lock: NodeLock, hand_over: HandOverTo | None
) -> Reception:
    """Answer processes that connect to the lock's socket, until the returned object is closed.

    Args:
        lock: The held lock.
        hand_over: Called with the connection when a process with CAP_NET_ADMIN requests the node;
            raises UserspaceProxyError on failure. None to refuse requests.
    """
    assert lock.listener is not None
    log_limit = LogLimit()

    def note(cause: str) -> None:
        if log_limit.take(loop.time()):
            _log.error("cannot hand over the node: %(cause)s", extra={"cause": cause})

    def try_to(sock: socket.socket) -> None:
        if hand_over is None:
            raise UserspaceProxyError("hand-over is disabled for this proxy")
        hand_over(sock)
        sock.close()

    return Reception(loop, lock.listener, try_to, note)


def worker_label(options: Options) -> str | None:
    """Return the label by which the next process finds this one's workers; None if they exit."""
    return None if options.hand_over is None else proxy_label(options.proxy_name or "")


async def adopt(label: str, stack: AsyncExitStack) -> PreviousWorkers | None:
    """Adopt and return the workers that the previous process left; None if it left none."""
    socks = connect_to_workers(label)
    if not socks:
        return None
    previous_workers = PreviousWorkers(asyncio.get_running_loop(), socks)
    # If this process fails to start, closing leaves the workers waiting for another process.
    stack.callback(previous_workers.close)
    count = await previous_workers.adopt()
    extra = {"workers": len(previous_workers), "sockets": count}
    _log.info("adopted the sockets of previous workers", extra=extra)
    return previous_workers


async def end_workers(label: str) -> bool:
    """Terminate workers of a killed process, waiting up to END_S; return whether any existed."""
    have_ended = False
    until = Clocks.monotonic() + END_S
    while socks := connect_to_workers(label):
        # Workers that don't answer in time are ordered to exit again in the next iteration.
        with contextlib.closing(
            PreviousWorkers(asyncio.get_running_loop(), socks)
        ) as previous_workers:
            if Clocks.monotonic() > until:
                extra = {"workers": len(socks)}
                _log.error(
                    "previous workers did not exit in time, leaving them running", extra=extra
                )
                break
            # Adopt the sockets first: workers obey only a process that has received them.
            await previous_workers.adopt()
            previous_workers.end()
        have_ended = True
        await pause(_LOOK_S)
    return have_ended


class Relief(Component):
    """Reports to the previous process that this one serves, and drains the previous workers."""

    def __init__(
        self,
        previous_workers: PreviousWorkers | None,
        progress: Progress,
        plane: Plane,
        options: Options,
    ) -> None:
        self._previous_workers = previous_workers
        self._progress = progress
        self._plane = plane
        self._options = options

    async def start(self, supervisor: Supervisor) -> None:
        if self._previous_workers is not None or self._options.report_serving is not None:
            supervisor.start("hand-over", self.run)

    async def run(self) -> None:
        """Drain the previous workers once this process's workers serve all Services.

        Just before the drain, this process reports that it serves.
        """
        options, previous_workers = self._options, self._previous_workers
        await self._progress.caught_up()
        await self._plane.serves(lambda: pause(_LOOK_S))
        if previous_workers is not None:
            await previous_workers.all_entries()
        # Report and drain without awaiting in between: after the report, the previous process
        # doesn't take the node back.
        if options.report_serving is not None:
            options.report_serving()
        if previous_workers is None:
            return
        drain_s = options.previous_drain_s
        previous_workers.drain(drain_s)
        _log.info("previous workers are draining", extra={"drain_s": drain_s})
